"""The script that `fccl dashboard` gives to Streamlit, which runs it anew whenever something changes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from fccl.apps.arguments import parse
from fccl.config import load_settings
from fccl.pages.dashboard.page import show


def folders(arguments: Sequence[str]) -> tuple[Path, Path]:
    """`LOG_DIR` and `EXCHANGE_DIR`, by arguments and environment. Raises `SettingsError`."""
    given, _ = parse("dashboard", arguments)
    settings = load_settings(given)
    return settings.log_dir, settings.exchange_dir


def page(arguments: Sequence[str]) -> None:
    """The whole page, for the folders that the arguments and the environment name."""
    show(lambda: folders(arguments))


if __name__ == "__main__":
    page(sys.argv[1:])
