"""The console that commands print to."""

from __future__ import annotations

from rich.console import Console


def plain_console(width: int | None = None) -> Console:
    """It prints what it is given: a path with `[/x]` or `:smile:` in it is a path."""
    return Console(width=width, markup=False, emoji=False)
