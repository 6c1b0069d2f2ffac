"""`fccl keys`: a key for the server and for every client."""

from __future__ import annotations

import argparse
from pathlib import Path

from fccl.apps.console import plain_console
from fccl.config import Settings
from fccl.keys import create_keys
from fccl.paths import KeyPaths

DEFAULT_FOLDER = "keys"


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Write new keys to `KEYS_DIR`. Returns the exit status."""
    paths = KeyPaths(Path(settings.keys_dir or DEFAULT_FOLDER))
    create_keys(paths, settings.num_clients)
    lines = (
        f"Wrote {paths.root}/: keys of the server and of {settings.num_clients} "
        f"client{'s'[: settings.num_clients != 1]}.",
        f"The orchestrator needs {paths.server.name} and {paths.public.name}; client i needs client_i.key and "
        f"{paths.public.name}, and nothing else.",
        f"Run both with KEYS_DIR={paths.root} (--keys-dir {paths.root}).",
    )
    console = plain_console()
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    return 0
