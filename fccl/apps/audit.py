"""`fccl audit`: canaries planted in one client's data, and attacks on what a federation then releases."""

from __future__ import annotations

import argparse

from rich.console import Console

from fccl.apps.console import plain_console, say
from fccl.apps.run_setup import asked_for
from fccl.apps.terminal_tables import print_table
from fccl.config import Settings, load_settings
from fccl.errors import SettingsError
from fccl.library.audit import audited, protecting
from fccl.model.loading import Models
from fccl.paths import LogPaths
from fccl.storage.files import write_text
from fccl.view.audit_tables import audit_tables, closed_lines


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Run a federation of its own, attack it, print and write the result. Returns the exit status."""
    console, models = plain_console(), Models()
    settings = asked_for(settings, options, models, console)
    beside = [_beside(options, text, models, console) for text in options.beside]
    audit = audited(settings, models, say, options.client, beside, options.forget)
    for table in audit_tables(audit):
        print_table(console, table)
    for line in closed_lines(audit):
        say(line)
    out = LogPaths(settings.log_dir).audit
    write_text(out, audit.model_dump_json(indent=1) + "\n")
    say(f"Wrote {out}; the report and the dashboard of the run in {settings.log_dir}/ show it too.")
    return 0


def _beside(options: argparse.Namespace, text: str, models: Models, console: Console) -> Settings:
    """The settings of one more federation: those of the command with other protections.

    Raises `SettingsError` for settings that protect nothing, or do not go together.
    """
    given = {**options.given, **_named(text)}
    return asked_for(load_settings(given), argparse.Namespace(given=given), models, console)


def _named(text: str) -> dict[str, str]:
    """`update-codec=int8,...` as settings by their names. Raises `SettingsError`."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        setting = name.lower().replace("-", "_")
        if not equals or setting not in protecting():
            known = ", ".join(sorted(each.upper() for each in protecting()))
            raise SettingsError(f"--beside {text}: must be NAME=VALUE of settings that protect", hint=known)
        found[setting] = value
    return found
