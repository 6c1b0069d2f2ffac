"""Asking a person before something is removed for good."""

from __future__ import annotations

import sys

from fccl.display.plain_text import printable
from fccl.errors import SettingsError

_YES = ("y", "yes")


def require_consent(to: str, yes: bool) -> None:
    """Ask whether to go on. `to` says what is done then, in a participle; with `yes` nobody is asked.

    Raises `SettingsError` where nobody agrees, and without a terminal, where nobody can be asked.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise SettingsError(f"{to}: there is no terminal to ask at", hint="--yes agrees; --predict removes nothing")
    if _answer(f"{printable(to)}. Go on? yes or no [no]: ").lower() not in _YES:
        raise SettingsError("nothing was trained or removed", hint="answer yes, or give --yes")


def _answer(question: str) -> str:
    try:
        return input(question).strip()
    except EOFError:
        raise KeyboardInterrupt from None
