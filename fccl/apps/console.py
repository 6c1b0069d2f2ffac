"""The console that commands print to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from fccl.display.plain_text import visible


class PlainConsole(Console):
    """A console on which all text is visible characters, whoever wrote it; only its own colours and bars are
    commands.
    """

    def render_str(self, text: str, **how: Any) -> Text:
        """A line as it is; rich itself would drop a bell and its like."""
        return super().render_str(visible(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """All that is printed comes through here, cell by cell."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def plain_console(width: int | None = None) -> Console:
    """It prints what it is given: a path with `[/x]` or `:smile:` in it is a path."""
    return PlainConsole(width=width, markup=False, emoji=False)


def telling(console: Console) -> Callable[[str], None]:
    """A function that prints a line as it is, however long."""
    return lambda line: console.print(line, soft_wrap=True)


def say(line: str) -> None:
    """One line of a command that has no more to show."""
    print(visible(line), flush=True)
