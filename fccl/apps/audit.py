"""`fccl audit`: canaries planted in one client's data, and attacks on what a federation then releases."""

from __future__ import annotations

import argparse

from fccl.apps.console import plain_console, say
from fccl.apps.run_setup import asked_for
from fccl.apps.terminal_tables import print_table
from fccl.config import Settings
from fccl.library.audit import audited
from fccl.model.loading import Models
from fccl.paths import LogPaths
from fccl.storage.files import write_text
from fccl.view.audit_tables import audit_table, closed_lines


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Run a federation of its own, attack it, print and write the result. Returns the exit status."""
    console, models = plain_console(), Models()
    settings = asked_for(settings, options, models, console)
    audit = audited(settings, models, say, options.client)
    print_table(console, audit_table(audit))
    for line in closed_lines(audit):
        say(line)
    out = LogPaths(settings.log_dir).audit
    write_text(out, audit.model_dump_json(indent=1) + "\n")
    say(f"Wrote {out}; the report and the dashboard of the run in {settings.log_dir}/ show it too.")
    return 0
