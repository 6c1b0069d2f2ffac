"""The command line, without anything heavy: `fccl --help` answers before torch is thought of."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from fccl.errors import SettingsError

Option = tuple[str, dict[str, Any]]

_NUMBER = re.compile(r"[0-9]{1,9}")
_MOST_EXAMPLES = 999_999_999


@dataclass(frozen=True)
class Command:
    """One subcommand: the settings it reads (by group), its own options, and the function that does the work."""

    summary: str
    module: str
    groups: tuple[str, ...]
    options: tuple[Option, ...] = ()

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
        ("run", "data", "model", "training", "federation", "contribution", "aggregation", "evaluation", "folders"),
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
        (
            "run",
            "data",
            "model",
            "training",
            "federation",
            "contribution",
            "aggregation",
            "evaluation",
            "exchange",
            "folders",
        ),
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
    ),
    "keys": Command(
        "make keys for an orchestrator and its clients, so that they believe nobody else",
        "keys",
        ("federation", "exchange"),
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
        ("run", "data", "model", "training", "federation", "contribution", "aggregation", "evaluation", "folders"),
        (
            (
                "--quick",
                {
                    "action": "store_true",
                    "help": "what matters most, less data, two seeds: within 15 minutes on two cores",
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
                    "help": "only these methods, and FedAvg (default all; an unknown name lists them)",
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


class _Parser(argparse.ArgumentParser):
    """Errors as `SettingsError`: one line, not the usage."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(message, hint=f"`{self.prog} --help` lists the arguments")


def overview() -> str:
    """What `fccl --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fccl COMMAND [arguments]",
            "",
            "Federated fine-tuning of GPT-2 with LoRA, aggregated by contribution (FCCL).",
            "",
            "commands:",
            *lines,
            "",
            "`fccl COMMAND --help` explains a command's settings. `fccl run` alone runs the quickstart: no network, "
            "no GPU, about a minute.",
            "Settings: argument > environment > .env > preset > default; --fed-rounds 5 is FED_ROUNDS=5.",
            "Results are in logs/, data in data/. `fccl --version` prints the version.",
        ]
    )


def parse(name: str, arguments: Sequence[str]) -> tuple[dict[str, Any], argparse.Namespace]:
    """Split a command's arguments into settings (only those given) and the command's own options.

    Raises `SettingsError`.
    """
    from fccl.config import Settings

    command = COMMANDS[name]
    parser = build_parser(name, command)
    known, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        _refuse(unknown[0], parser)
    values = vars(known)
    settings = {key: values.pop(key) for key in list(values) if key in Settings.model_fields}
    return settings, known


def build_parser(name: str, command: Command) -> argparse.ArgumentParser:
    """The parser of one command: its own options, then each setting under its group with range and default."""
    from fccl.config import GROUPS, Settings, allowed, group_of

    parser = _Parser(
        prog=f"fccl {name}",
        usage=_usage(name, command),
        description=command.summary[0].upper() + command.summary[1:] + ".",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=36, width=120),
        epilog="Each setting can also stand in the environment or in .env, in upper case: --fed-rounds 5 is "
        "FED_ROUNDS=5. " + (_presets(command.groups) if "run" in command.groups else ""),
    )
    for flag, options in command.options:
        parser.add_argument(flag, **options)
    groups = {group: parser.add_argument_group(group) for group in GROUPS if group in command.groups}
    for field_name, field in Settings.model_fields.items():
        group = groups.get(group_of(field))
        if group is None:
            continue
        flag = "--" + field_name.replace("_", "-")
        text = f"{field.description} [{allowed(field)}; default {_shown(field.default)}]".replace("%", "%%")
        if field.annotation is bool:
            group.add_argument(
                flag, dest=field_name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
            )
        else:
            group.add_argument(flag, dest=field_name, default=argparse.SUPPRESS, metavar="X", help=text)
    return parser


def _usage(name: str, command: Command) -> str:
    options = [
        flag if options.get("action") else f"{flag} {options.get('metavar', 'X')}"
        for flag, options in command.options
        if flag[0] == "-"
    ]
    named = [str(options["metavar"]) for flag, options in command.options if flag[0] != "-"]
    return " ".join([f"fccl {name}", *named, *(f"[{option}]" for option in options), "[--SETTING VALUE ...]"])


def _presets(groups: Sequence[str]) -> str:
    """What each preset sets, among the settings of these groups."""
    from fccl.config import Settings, group_of
    from fccl.presets import PRESETS

    lines = []
    for preset, values in PRESETS.items():
        shown = [f"{name}={value}" for name, value in values.items() if group_of(Settings.model_fields[name]) in groups]
        if shown:
            lines.append(f"--preset {preset} sets {', '.join(shown)}.")
    return " ".join(lines)


def _shown(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default) or "empty"


def _refuse(argument: str, parser: argparse.ArgumentParser) -> NoReturn:
    from fccl.config import nearest

    flag = argument.split("=")[0]
    guess = nearest(flag, [option for action in parser._actions for option in action.option_strings])
    raise SettingsError(
        f"unknown argument {flag}",
        hint=f"did you mean {guess}?" if guess else f"`{parser.prog} --help` lists the arguments",
    )
