"""`fccl prepare`: settings in, prepared data and a table of who holds what out."""

from __future__ import annotations

import argparse

from fccl.apps.console import plain_console, telling
from fccl.apps.data_screen import DataScreen
from fccl.config import Settings
from fccl.data.in_use import prepare_anew
from fccl.display.plain_text import one_line
from fccl.library.ignored import refuse_unqualified
from fccl.library.narrow import data_spec
from fccl.library.places import require_apart
from fccl.library.runs_of_data import losing_line
from fccl.paths import DataPaths


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Prepare the data anew, whatever is there; with `--keep` only when there is none. Returns the exit status."""
    refuse_unqualified(settings, options.given)
    require_apart(settings, ("data_dir", "log_dir"))
    spec, data, console = data_spec(settings), DataPaths(settings.data_dir), plain_console()
    if not options.keep and (line := losing_line(settings.log_dir, data, spec)):
        telling(console)(one_line(line))
    prepare_anew(spec, data, DataScreen(console), options.keep)
    return 0
