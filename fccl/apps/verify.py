"""`fccl verify`: a finished run's result, checked against its files; for a partner as a page and as JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

from fccl.apps.console import plain_console, telling
from fccl.apps.terminal_tables import print_table
from fccl.config import Settings
from fccl.library.answers import checker, write_check
from fccl.library.export import require_new
from fccl.paths import KeyPaths
from fccl.view.after import check_table, verdict


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Check the run, and write what was found. Returns 0 where nothing is wrong, else 1."""
    console = plain_console()
    if options.out:
        require_new(settings, Path(options.out))
    keys = KeyPaths(Path(settings.keys_dir)) if "keys_dir" in options.given else None
    after, check = checker(settings.log_dir, options.run, options.given, keys)
    found = check.check()
    print_table(console, check_table(found))
    page = write_check(after, found, Path(options.out) if options.out else None)
    telling(console)(f"{verdict(found)}. Written to {page} and {page.with_suffix('.json').name} beside it.")
    return 0 if found.sound else 1
