"""Tables as values: what the terminal, Markdown, the report and the dashboard render."""

from __future__ import annotations

from dataclasses import dataclass

MOST_OPEN_ROWS = 24  # longer tables are folded


@dataclass(frozen=True)
class Cell:
    """One cell: its text, and smaller below it what qualifies it and what it amounts to."""

    text: str
    below: str = ""
    verdict: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under a heading each.

    The first cell of a row is its heading; columns of `words` are text, the others figures.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    note: str = ""
    words: frozenset[int] = frozenset()
    aside: bool = False  # few need it

    @property
    def folded(self) -> bool:
        """Shown when somebody asks."""
        return self.aside or len(self.rows) > MOST_OPEN_ROWS


@dataclass(frozen=True)
class ScenarioTable:
    """One scenario: a row for every method. The first cell of a row names it."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
