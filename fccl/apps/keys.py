"""`fccl keys`: a key for the server and for every client, more keys, and keys that are revoked."""

from __future__ import annotations

import argparse
from pathlib import Path

from fccl.apps.console import plain_console
from fccl.config import Settings
from fccl.config.fields import WHOLE_NUMBER
from fccl.display.words import plural
from fccl.errors import SettingsError
from fccl.keys import add_keys, create_keys, revoke_keys
from fccl.paths import KeyPaths

DEFAULT_FOLDER = "keys"


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Write new keys to `KEYS_DIR`, add some, or revoke some. Returns the exit status."""
    paths = KeyPaths(Path(settings.keys_dir or DEFAULT_FOLDER))
    if options.add and options.revoke:
        raise SettingsError("--add and --revoke are two steps", hint="give the one, then the other")
    if options.add:
        lines = _added(paths, options.add)
    elif options.revoke:
        lines = _revoked(paths, options.revoke)
    else:
        lines = _created(paths, settings.num_clients)
    console = plain_console()
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    return 0


def _created(paths: KeyPaths, num_clients: int) -> tuple[str, ...]:
    create_keys(paths, num_clients)
    return (
        f"Wrote {paths.root}/: keys of the server and of {plural(num_clients, 'client')}.",
        f"The orchestrator needs {paths.server.name} and {paths.public.name}; client i needs client_i.key and "
        f"{paths.public.name}, and nothing else.",
        f"Run both with KEYS_DIR={paths.root} (--keys-dir {paths.root}).",
    )


def _added(paths: KeyPaths, count: int) -> tuple[str, ...]:
    names = ", ".join(paths.client(number).name for number in add_keys(paths, count))
    return (
        f"Wrote {names} to {paths.root}/, and the public keys to {paths.public.name}.",
        f"Each new client needs its key and {paths.public.name}. The orchestrator follows {paths.public.name}, also "
        "while it is at work; the other clients need not.",
    )


def _revoked(paths: KeyPaths, text: str) -> tuple[str, ...]:
    if not all(WHOLE_NUMBER.fullmatch(part) for part in text.split(",")):
        raise SettingsError(f"--revoke {text}: must be client numbers with commas between, such as 0,2")
    revoke_keys(paths, {int(part) for part in text.split(",")})
    return (
        f"Revoked in {paths.public}: {text}. The orchestrator believes nothing of theirs that it has not read yet.",
        "Their numbers are never given again; `fccl keys --add 1` makes a key of a new number.",
    )
