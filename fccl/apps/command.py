"""`Command`: a subcommand as a value. Loads nothing heavy."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fccl.apps.refused import Refusal

Option = tuple[str, dict[str, Any]]

REDO_VA: Option = (
    "--redo-va",
    {
        "action": "store_true",
        "help": "with --resume and more --sft-rounds: do the VA rounds anew after them; those that are done are kept "
        "in runs/",
    },
)
GOES_ON: tuple[Option, ...] = (
    (
        "--resume",
        {
            "action": "store_true",
            "help": "go on with the run in LOG_DIR; an unfinished one with the same settings goes on without "
            "it; with --va-rounds, --sft-rounds or --fed-rounds it has so many in all, those done included",
        },
    ),
    REDO_VA,
    ("--new", {"action": "store_true", "help": "begin a new run even so; the one in LOG_DIR is kept in runs/"}),
)

_NUMBER = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True)
class Command:
    """One subcommand: the settings it reads (by group), its own options, and the function that does the work.

    `only` names the settings that it reads of these groups; empty: all but those of `without` and of `refuses`, which
    says why there is none.
    """

    summary: str
    module: str
    groups: tuple[str, ...]
    options: tuple[Option, ...] = ()
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    refuses: Mapping[str, Refusal] = field(default_factory=dict)

    def reads(self, setting: str, group: str) -> bool:
        """Whether a setting of this group is one of the command's arguments."""
        left_out = setting in self.without or setting in self.refuses
        return group in self.groups and (not self.only or setting in self.only) and not left_out

    def main(self) -> Callable[..., int]:
        """Import the app now and return its `main(settings, options)`."""
        function: Callable[..., int] = importlib.import_module(f"fccl.apps.{self.module}").main
        return function


def up_to(most: int, least: int = 0) -> Callable[[str], int]:
    """The type of an argument that is a whole number from `least` to `most`."""

    def count(text: str) -> int:
        if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most:,}")
        return int(text)

    return count


def port(text: str) -> int:
    """A TCP port."""
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 1 to 65535")
    return int(text)
