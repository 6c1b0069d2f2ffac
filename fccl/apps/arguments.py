"""The command line, without anything heavy: `fccl --help` answers before torch is thought of."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from fccl.apps.command import Command
from fccl.apps.commands import COMMANDS
from fccl.errors import SettingsError
from fccl.presets import FEW, USUAL

HELP_ALL = "--help-all"


class _Parser(argparse.ArgumentParser):
    """Errors as `SettingsError`: one line, not the usage."""

    def error(self, message: str) -> NoReturn:
        raise SettingsError(message, hint=f"`{self.prog} {HELP_ALL}` lists the arguments")


def overview() -> str:
    """The text of `fccl --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: fccl COMMAND [arguments]",
            "",
            "Federated fine-tuning of causal language models with LoRA, aggregated by contribution (FCCL).",
            "",
            "commands:",
            *lines,
            "",
            "`fccl COMMAND --help` explains the settings that people change, `--help-all` all of them.",
            "`fccl run` alone runs the quickstart: no network, no GPU, about a minute. `fccl init` asks five questions "
            "and writes .env for your own model and data.",
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
    parser = build_parser(name, command, HELP_ALL in arguments)
    known, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        _refuse(unknown[0], name, parser)
    values = vars(known)
    settings = {key: values.pop(key) for key in list(values) if key in Settings.model_fields}
    return settings, known


def build_parser(name: str, command: Command, everything: bool = True) -> argparse.ArgumentParser:
    """The parser of one command: its own options, then each setting under its group with range and default.

    It knows all settings of the command; its help shows those that people change, or with `everything` all of them.
    """
    from fccl.config import GROUPS, Settings, group_of

    settings = [key for key, field in Settings.model_fields.items() if command.reads(key, group_of(field))]
    shown = frozenset(settings) if everything or len(settings) <= FEW else USUAL
    parser = _Parser(
        prog=f"fccl {name}",
        usage=_usage(name, command),
        description=command.summary[0].upper() + command.summary[1:] + ".",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=36, width=120),
        epilog=_epilog(name, command, len(set(settings) - shown)) if settings else "",
    )
    parser.add_argument(HELP_ALL, action="help", help="show this help with every setting and exit")
    for flag, options in command.options:
        parser.add_argument(flag, **options)
    groups = {group: parser.add_argument_group(group) for group in GROUPS if group in command.groups}
    for key in settings:
        _add_setting(groups[group_of(Settings.model_fields[key])], key, key in shown)
    return parser


def _add_setting(group: argparse._ArgumentGroup, name: str, shown: bool) -> None:
    """One setting as an argument, explained where it is shown."""
    from fccl.config import Settings

    field = Settings.model_fields[name]
    kind: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if field.annotation is bool else {"metavar": "X"}
    text = _explained(name) if shown else argparse.SUPPRESS
    group.add_argument("--" + name.replace("_", "-"), dest=name, default=argparse.SUPPRESS, help=text, **kind)


def _explained(name: str) -> str:
    from fccl.config import Settings, allowed
    from fccl.library.ignored import read_by

    field = Settings.model_fields[name]
    read = f"; read under {who}" if (who := read_by(name)) else ""
    return f"{field.description} [{allowed(field)}; default {_shown(field.default)}{read}]".replace("%", "%%")


def _epilog(name: str, command: Command, hidden: int) -> str:
    """Where settings can stand beside the command line, and where the other ones are explained."""
    said = "Each setting can also stand in the environment or in .env, in upper case: --log-dir x is LOG_DIR=x."
    if hidden:
        return f"`fccl {name} {HELP_ALL}` explains the other {hidden} settings. {said}"
    return f"{said} {_presets(command.groups)}" if "run" in command.groups else said


def _setting(flag: str) -> str:
    """The setting that a flag would be the argument of."""
    return flag.removeprefix("--").removeprefix("no-").replace("-", "_")


def _readers(flag: str) -> str:
    """The commands that take a setting as an argument, in words; empty where the flag is no setting's."""
    from fccl.config import Settings, group_of

    setting = _setting(flag)
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
    from fccl.display.words import nearest

    flag = argument.split("=")[0]
    if refusal := COMMANDS[name].refuses.get(_setting(flag)):
        raise SettingsError(f"{flag}: {refusal[0]}", hint=refusal[1])
    if readers := _readers(flag):
        raise SettingsError(f"fccl {name} does not read {flag}", hint=f"leave it out; it is read by {readers}")
    guess = nearest(flag, [option for action in parser._actions for option in action.option_strings])
    raise SettingsError(
        f"unknown argument {flag}",
        hint=f"did you mean {guess}?" if guess else f"`{parser.prog} {HELP_ALL}` lists the arguments",
    )
