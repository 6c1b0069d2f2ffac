"""`fccl init`: five questions, their answers checked, and a commented `.env`.

An answer that is an argument is not asked for. Without a terminal nothing is: what no argument says keeps its default.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.text import Text

from fccl.apps.console import plain_console
from fccl.apps.init_answers import MACHINES, WISHES, Answers, checked_data, checked_model, machine_of, wishes_of
from fccl.apps.init_file import dotenv
from fccl.config import Settings, load_settings
from fccl.display.plain_text import one_line
from fccl.errors import FcclError, SettingsError
from fccl.storage.files import write_text
from fccl.storage.temporary import sweep_for

T = TypeVar("T")


def main(settings: Settings, options: argparse.Namespace) -> int:
    """Ask, check, write. Returns the exit status."""
    console, out = plain_console(), Path(options.out)
    person = _Person(console, sys.stdin is not None and sys.stdin.isatty() and console.is_terminal)
    person.require_free(out, options.replace)
    machine_of(options.machine or "here")  # a word that nobody knows is said before a model is loaded
    wishes_of(options.privacy or "none", options.machine or "apart")
    answers = _answers(person, settings, options)
    if not person.is_there and (unsaid := _unsaid(options)):
        person.tell(f"There is no terminal, so nobody was asked: {', '.join(unsaid)} have their defaults.")
    sweep_for(out)
    write_text(out, dotenv(tuple(answers.parts())))
    tell = person.tell
    tell(f"Wrote {out}.")
    for line in answers.next_steps():
        tell(line)
    return 0


@dataclass(frozen=True)
class _Person:
    """Somebody at a terminal, or nobody."""

    console: Console
    is_there: bool

    def answer(self, question: str, given: str | None, default: str, check: Callable[[str], T]) -> T:
        """The checked answer: the one that was given, else asked for until it passes, else the default.

        Raises what `check` raises for an answer that nobody can be asked for again.
        """
        while True:
            text = given if given is not None else self._said(question, default) if self.is_there else default
            try:
                return check(text)
            except FcclError as error:
                if given is not None or not self.is_there:
                    raise
                self.tell(f"  {one_line(str(error))}{f' ({error.hint})' if error.hint else ''}")

    def require_free(self, out: Path, replace: bool) -> None:
        """Raises `SettingsError` for a file that is there and that nobody allows to be replaced."""
        if replace or not out.exists():
            return
        if not self.is_there or self._said(f"{out} is there. Replace it? yes or no", "no").lower() not in ("y", "yes"):
            raise SettingsError(f"{out} is there already", hint="--replace replaces it, --out names another file")

    def _said(self, question: str, default: str) -> str:
        try:
            return input(f"{question} [{default}]: ").strip() or default
        except EOFError:
            raise KeyboardInterrupt from None

    def tell(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)


def _answers(person: _Person, settings: Settings, options: argparse.Namespace) -> Answers:
    """The five questions, in order; each answer is checked before the next question."""
    given, tell = options.given, person.tell

    def ask(name: str, question: str, check: Callable[[str], T]) -> T:
        return person.answer(question, given.get(name), str(getattr(settings, name)), check)

    model = ask(
        "model_name", "1/5 Model: builtin:micro, a hub name or a folder", lambda text: checked_model(text, tell)
    )
    sft = ask(
        "sft_data", "2/5 Instructions: builtin, a file or a hub name", lambda text: checked_data("sft", text, tell)
    )
    va = ask("va_data", "    Preference pairs: the same, or synthetic", lambda text: checked_data("va", text, tell))
    clients = ask("num_clients", "3/5 Clients", _clients)
    machine = person.answer(f"4/5 Where do they run?{_choices(MACHINES)}", options.machine, "here", machine_of)
    wishes = person.answer(
        f"5/5 Privacy, one or more with commas{_choices(WISHES)}",
        options.privacy,
        "none",
        lambda text: wishes_of(text, machine),
    )
    return Answers(model, sft, va, clients, machine, wishes).said(tell)


def _unsaid(options: argparse.Namespace) -> list[str]:
    """The arguments that would have been answers."""
    given = {**options.given, "machine": options.machine, "privacy": options.privacy}
    names = ("model_name", "sft_data", "va_data", "num_clients", "machine", "privacy")
    return [f"--{name.replace('_', '-')}" for name in names if given.get(name) is None]


def _clients(text: str) -> int:
    return load_settings({"num_clients": text}).num_clients


def _choices(named: dict[str, str]) -> str:
    """A line for each choice, and a last one for the answer."""
    width = max(map(len, named))
    return "".join(f"\n      {name:<{width}}  {meaning}" for name, meaning in named.items()) + "\n   "
