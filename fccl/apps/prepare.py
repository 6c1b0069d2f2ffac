"""`fccl prepare`: settings in, prepared data and a table of who holds what out."""

from __future__ import annotations

import argparse

from fccl.apps.console import plain_console
from fccl.apps.data_screen import DataScreen
from fccl.config import Settings
from fccl.data.in_use import prepare_anew
from fccl.library.ignored import refuse_unqualified
from fccl.library.narrow import data_spec
from fccl.library.places import require_apart
from fccl.paths import DataPaths


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Prepare the data anew, whatever is there; with `--keep` only when there is none. Returns the exit status."""
    refuse_unqualified(settings, options.given)
    require_apart(settings, ("data_dir", "log_dir"))
    prepare_anew(data_spec(settings), DataPaths(settings.data_dir), DataScreen(plain_console()), options.keep)
    return 0
