"""The commands: which settings and options each has, and which app does the work. Loads nothing heavy."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fccl.presets import GROUPS

Option = tuple[str, dict[str, Any]]

_IN_PROCESS = tuple(group for group in GROUPS if group != "exchange")
CLIENT_READS = (
    *("exchange_dir", "client_id", "heartbeat_s", "keys_dir", "state_dir", "cache_mb", "exchange_watch"),
    "data_dir",
)
_NUMBER = re.compile(r"[0-9]{1,9}")
_MOST_EXAMPLES = 999_999_999


@dataclass(frozen=True)
class Command:
    """One subcommand: the settings it reads (by group), its own options, and the function that does the work.

    `only` names the settings that it reads of these groups; empty: it reads all of them.
    """

    summary: str
    module: str
    groups: tuple[str, ...]
    options: tuple[Option, ...] = ()
    only: tuple[str, ...] = ()

    def reads(self, setting: str, group: str) -> bool:
        """Whether a setting of this group is one of the command's arguments."""
        return group in self.groups and (not self.only or setting in self.only)

    def main(self) -> Callable[..., int]:
        """Import the app now and return its `main(settings, options)`."""
        function: Callable[..., int] = importlib.import_module(f"fccl.apps.{self.module}").main
        return function


def _up_to(most: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number from 0 to `most`."""

    def count(text: str) -> int:
        if not _NUMBER.fullmatch(text) or int(text) > most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {most:,}")
        return int(text)

    return count


def _port(text: str) -> int:
    """A TCP port."""
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 1 to 65535")
    return int(text)


COMMANDS: Mapping[str, Command] = {
    "prepare": Command(
        "read the data, split it, and cut a shard for every client",
        "prepare",
        ("run", "data", "federation", "folders"),
        (
            (
                "--keep",
                {
                    "action": "store_true",
                    "help": "leave data that these settings have made as it is, and refuse to replace any other",
                },
            ),
        ),
    ),
    "run": Command(
        "run a federation in this process: FedIT rounds, then FedVA rounds, then the evaluation",
        "run",
        _IN_PROCESS,
        (
            (
                "--resume",
                {
                    "action": "store_true",
                    "help": "go on from the last complete round, with the settings that the run was started with",
                },
            ),
        ),
    ),
    "orchestrator": Command(
        "run a federation whose clients are other processes, over an exchange directory",
        "orchestrator",
        GROUPS,
        (
            (
                "--resume",
                {
                    "action": "store_true",
                    "help": "go on with the run in LOG_DIR; an unfinished one with the same settings goes on without "
                    "it",
                },
            ),
            ("--new", {"action": "store_true", "help": "begin a new run even so; the one in LOG_DIR is kept in runs/"}),
        ),
    ),
    "client": Command(
        "one client of such a federation: trains on its own shard until the run is done",
        "client",
        ("exchange", "folders"),
        (
            (
                "--client-lora-r",
                {
                    "metavar": "R",
                    "default": argparse.SUPPRESS,
                    "help": "directions that this client trains (default: the federation's)",
                },
            ),
        ),
        only=CLIENT_READS,
    ),
    "keys": Command(
        "make keys for an orchestrator and its clients, so that they believe nobody else",
        "keys",
        ("federation", "exchange"),
        only=("num_clients", "keys_dir"),
    ),
    "compose": Command(
        "write docker-compose.yml for a number of clients",
        "compose",
        (),
        (
            (
                "--num-clients",
                {"metavar": "N", "default": argparse.SUPPRESS, "help": "a service for each of so many (default 3)"},
            ),
            (
                "--original-clients",
                {
                    "metavar": "I,J",
                    "default": argparse.SUPPRESS,
                    "help": "no service for these: peers that know only the original files",
                },
            ),
            (
                "--keys",
                {
                    "action": "store_true",
                    "help": "everybody signs; keys are in KEYS_DIR (default ./keys), made at the first start",
                },
            ),
            (
                "--out",
                {
                    "metavar": "FILE",
                    "default": "docker-compose.yml",
                    "help": "where to; - prints it (default docker-compose.yml)",
                },
            ),
        ),
    ),
    "evaluate": Command(
        "evaluate base, SFT and FedVA on the test split",
        "evaluate",
        ("evaluation", "folders"),
        (
            (
                "--sft",
                {
                    "type": _up_to(_MOST_EXAMPLES),
                    "metavar": "N",
                    "default": 0,
                    "help": "use at most N test instructions; 0 takes all (default 0)",
                },
            ),
            (
                "--va",
                {
                    "type": _up_to(_MOST_EXAMPLES),
                    "metavar": "N",
                    "default": 0,
                    "help": "use at most N test pairs; 0 takes all (default 0)",
                },
            ),
            (
                "--per-client",
                {
                    "action": "store_true",
                    "help": "also evaluate each client's own last update, and the global one on each client's topics",
                },
            ),
            ("--skip-base", {"action": "store_true", "help": "leave the base model out"}),
        ),
    ),
    "compare": Command(
        "compare FedAvg, FCCL, robust rules and an oracle in the same scenarios, with intervals; goes on where it "
        "was stopped",
        "compare",
        _IN_PROCESS,
        (
            (
                "--quick",
                {
                    "action": "store_true",
                    "help": "what matters most, less data, two seeds: within 6 minutes on two cores",
                },
            ),
            (
                "--set",
                {
                    "choices": ("evidence",),
                    "default": "",
                    "help": "the set that the claim rests on, fixed in the program: scenarios, methods, seeds, at most "
                    "12 hours of two cores; says before what it will cost",
                },
            ),
            (
                "--until-flat",
                {
                    "action": "store_true",
                    "help": "every scenario a second time, with as many rounds as FedAvg of its honest clients needs "
                    "to stop gaining",
                },
            ),
            (
                "--scenarios",
                {
                    "metavar": "A,B",
                    "default": "",
                    "help": "only these scenarios (default all; an unknown name lists them)",
                },
            ),
            (
                "--methods",
                {
                    "metavar": "X,Y",
                    "default": "",
                    "help": "only these methods, and FedAvg (default all; an unknown name lists them); fedadam@0.1 "
                    "is one with its knob at that value; package.module:Class puts a rule of your own beside them",
                },
            ),
            (
                "--seeds",
                {
                    "type": _up_to(1000),
                    "metavar": "N",
                    "default": 0,
                    "help": "so many seeds: SEED, SEED + 1, ... (default 5, with --quick 2)",
                },
            ),
            (
                "--agreement",
                {
                    "action": "store_true",
                    "help": "also hold every round's weights against exact Shapley values (at most 8 clients; costly)",
                },
            ),
            (
                "--tune",
                {
                    "action": "store_true",
                    "help": "try the values of the methods' knobs on seeds of their own; the learn split judges",
                },
            ),
            (
                "--jobs",
                {
                    "type": _up_to(1024),
                    "metavar": "N",
                    "default": 0,
                    "help": "processes, each with one thread (default one a core, at most 8)",
                },
            ),
            ("--out", {"metavar": "FOLDER", "default": "", "help": "where to (default LOG_DIR/compare)"}),
        ),
    ),
    "dashboard": Command(
        "show the run in LOG_DIR, and earlier ones, in the browser; it reads and never writes",
        "dashboard",
        (),
        (
            (
                "--log-dir",
                {"metavar": "FOLDER", "default": argparse.SUPPRESS, "help": "the run's records (default logs)"},
            ),
            (
                "--exchange-dir",
                {
                    "metavar": "FOLDER",
                    "default": argparse.SUPPRESS,
                    "help": "the exchange directory, if there is one (default exchange)",
                },
            ),
            (
                "--host",
                {
                    "metavar": "ADDRESS",
                    "default": "127.0.0.1",
                    "help": "where to listen (default 127.0.0.1: this machine alone)",
                },
            ),
            ("--port", {"type": _port, "metavar": "N", "default": 8501, "help": "the port (default 8501)"}),
        ),
    ),
    "report": Command(
        "write a run as one HTML file that needs no network: to send, to print, to keep",
        "report",
        (),
        (
            (
                "out",
                {
                    "metavar": "[OUT.html]",
                    "nargs": "?",
                    "default": "",
                    "help": "where to (default LOG_DIR/report.html)",
                },
            ),
            (
                "--run",
                {"metavar": "ID", "default": "", "help": "an earlier run, by its id (default the one in LOG_DIR)"},
            ),
            (
                "--log-dir",
                {"metavar": "FOLDER", "default": argparse.SUPPRESS, "help": "the runs' records (default logs)"},
            ),
            (
                "--exchange-dir",
                {
                    "metavar": "FOLDER",
                    "default": argparse.SUPPRESS,
                    "help": "the exchange directory, if there is one (default exchange)",
                },
            ),
        ),
    ),
    "export": Command(
        "write the final adapter, with --merge a plain model folder, with --base the base model as one",
        "export",
        ("folders",),
        (
            ("out", {"metavar": "FOLDER", "help": "where to; it must not exist yet"}),
            (
                "--merge",
                {
                    "action": "store_true",
                    "help": "fold the adapter into the base model: a folder that transformers loads without PEFT",
                },
            ),
            (
                "--base",
                {"action": "store_true", "help": "the base model alone, for whoever loads the adapter without FCCL"},
            ),
            (
                "--phase",
                {
                    "choices": ("sft", "va"),
                    "default": "va",
                    "help": "the global adapter after which phase (default va)",
                },
            ),
        ),
    ),
}
