"""Tables in Markdown, and text that Markdown shows as it is."""

from __future__ import annotations

import re

from fccl.display.plain_text import visible
from fccl.display.tables import Cell, Table

_SPECIAL = re.compile(r"([\\`*_\[\]<>&|~$])")


def quoted(text: str) -> str:
    r"""Text as Markdown that shows just this text, in one line and fit for a table's cell.

    >>> quoted("a | *b*")
    'a \\| \\*b\\*'
    """
    return _SPECIAL.sub(r"\\\1", visible(text)).replace("\n", "<br>").replace("\t", " ")


def markdown_table(table: Table) -> str:
    """The head and the rows, without title and note. What stands out is bold; every other sign is text."""
    rule = "|".join("---" if table.is_text(index) else "---:" for index in range(len(table.head)))
    lines = [_line(list(map(quoted, table.head))), f"|{rule}|"]
    return "\n".join([*lines, *(_line([_cell(table, cell) for cell in row]) for row in table.cells)])


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(table: Table, cell: Cell) -> str:
    figure = f"**{quoted(cell.text)}**" if cell.strong and cell.text.strip() else quoted(cell.text)
    interval = f"[{quoted(cell.interval)}]" if cell.interval else ""
    note = f"({quoted(cell.note)})" if cell.note else ""
    return " ".join(part for part in (figure, interval, quoted(table.verdict(cell)), note) if part)
