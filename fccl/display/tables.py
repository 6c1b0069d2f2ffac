"""Tables as values: the terminal, Markdown, the report and the dashboard each render the same `Table`.

A builder says what a figure is: its interval, its verdict, whether it stands out. A renderer decides how that looks,
and spells out whatever its medium would obey.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fccl.display.words import DASH

MOST_OPEN_ROWS = 24  # longer tables are folded
# A verdict is a word with a sign, never a colour alone.
SIGNS = {"better": "▲", "worse": "▼", "no significant difference": "≈", "no difference": "≈", "not worse": "≈"} | {
    "cannot be told apart": "?",
    "not told apart": "?",
}


@dataclass(frozen=True)
class Cell:
    """One cell: a text, and what qualifies it. Each part may be empty."""

    text: str
    interval: str = ""  # without its brackets
    verdict: str = ""  # in words; `SIGNS` has the sign of those that have one
    note: str = ""  # how to read it, or what it belongs to
    strong: bool = False  # to be seen first: the best of its row, the better of two
    shade: float | None = None  # 0 to 1, for a background


@dataclass(frozen=True)
class Table:
    """Rows under a heading each; every row has as many cells as the head. The first cell of a row is its heading.

    >>> table = Table("Losses", ("client", "loss"), (("0", Cell("1.25", strong=True)), ("1", Cell("1.50"))))
    >>> [row[1].text for row in table.cells]
    ['1.25', '1.50']
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell | str, ...], ...]
    note: str = ""
    words: frozenset[int] = frozenset()  # columns of text, beside the first; the others are figures
    spare: frozenset[int] = frozenset()  # columns that a narrow screen can do without
    aside: bool = False  # few need it
    brief: bool = False  # of a verdict the sign alone
    last_is_sum: bool = False  # the last row holds the sums of the others

    def __post_init__(self) -> None:
        if uneven := {len(row) for row in self.rows} - {len(self.head)}:
            raise ValueError(f"a row of {min(uneven)} cells under {len(self.head)} headings: {self.title}")

    @property
    def cells(self) -> tuple[tuple[Cell, ...], ...]:
        """The rows, each text as a cell."""
        return tuple(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in self.rows)

    @property
    def folded(self) -> bool:
        """Shown when somebody asks."""
        return self.aside or len(self.rows) > MOST_OPEN_ROWS

    def is_text(self, column: int) -> bool:
        """Whether a column is text, which begins at the left; figures end at the right."""
        return column == 0 or column in self.words

    def with_columns(self, kept: list[int]) -> Table:
        """The table with these columns alone, in this order."""

        def moved(columns: frozenset[int]) -> frozenset[int]:
            return frozenset(new for new, old in enumerate(kept) if old in columns)

        return replace(
            self,
            head=tuple(self.head[index] for index in kept),
            rows=tuple(tuple(row[index] for index in kept) for row in self.rows),
            words=moved(self.words),
            spare=moved(self.spare),
        )

    def without_empty_columns(self) -> Table:
        """The table without the columns in which every row has a dash."""
        return self.with_columns(
            [index for index in range(len(self.head)) if any(row[index] != Cell(DASH) for row in self.cells)]
        )

    def verdict(self, cell: Cell) -> str:
        """A cell's verdict with its sign, or the sign alone."""
        sign = SIGNS.get(cell.verdict, "")
        return sign if self.brief else f"{sign} {cell.verdict}".strip()
