"""The command line, without anything heavy: `fccl --help` answers before torch is thought of."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from fccl.apps.commands import COMMANDS, Command
from fccl.errors import SettingsError


class _Parser(argparse.ArgumentParser):
    """Errors as `SettingsError`: one line, not the usage."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(message, hint=f"`{self.prog} --help` lists the arguments")


def overview() -> str:
    """The text of `fccl --help`."""
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
        _refuse(unknown[0], name, parser)
    values = vars(known)
    settings = {key: values.pop(key) for key in list(values) if key in Settings.model_fields}
    return settings, known


def build_parser(name: str, command: Command) -> argparse.ArgumentParser:
    """The parser of one command: its own options, then each setting under its group with range and default."""
    from fccl.config import GROUPS, Settings, allowed, group_of
    from fccl.library.ignored import read_by

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
        if not command.reads(field_name, group_of(field)):
            continue
        group = groups[group_of(field)]
        flag = "--" + field_name.replace("_", "-")
        read = f"; read under {who}" if (who := read_by(field_name)) else ""
        text = f"{field.description} [{allowed(field)}; default {_shown(field.default)}{read}]".replace("%", "%%")
        if field.annotation is bool:
            group.add_argument(
                flag, dest=field_name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text
            )
        else:
            group.add_argument(flag, dest=field_name, default=argparse.SUPPRESS, metavar="X", help=text)
    return parser


def _readers(flag: str) -> str:
    """The commands that take a setting as an argument, in words; empty where the flag is no setting's."""
    from fccl.config import Settings, group_of

    setting = flag.removeprefix("--").removeprefix("no-").replace("-", "_")
    field = Settings.model_fields.get(setting) if flag.startswith("--") else None
    if field is None:
        return ""
    return ", ".join(f"fccl {name}" for name, command in COMMANDS.items() if command.reads(setting, group_of(field)))


def _usage(name: str, command: Command) -> str:
    options = [
        flag if options.get("action") else f"{flag} {options.get('metavar', 'X')}"
        for flag, options in command.options
        if flag[0] == "-"
    ]
    named = [str(options["metavar"]) for flag, options in command.options if flag[0] != "-"]
    return " ".join([f"fccl {name}", *named, *(f"[{option}]" for option in options), "[--SETTING VALUE ...]"])


def _presets(groups: Sequence[str]) -> str:
    """The settings of each preset, among the settings of these groups."""
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


def _refuse(argument: str, name: str, parser: argparse.ArgumentParser) -> NoReturn:
    from fccl.config import nearest

    flag = argument.split("=")[0]
    if readers := _readers(flag):
        raise SettingsError(f"fccl {name} does not read {flag}", hint=f"leave it out; it is read by {readers}")
    guess = nearest(flag, [option for action in parser._actions for option in action.option_strings])
    raise SettingsError(
        f"unknown argument {flag}",
        hint=f"did you mean {guess}?" if guess else f"`{parser.prog} --help` lists the arguments",
    )
