"""Tables on the terminal. What stands out has a sign beside its colour; no text acts on the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from fccl.plain_text import one_line
from fccl.tables import Cell, Table

QUIET, BEST = "dim", "bold"
VERDICTS = {"better": "green", "worse": "red"}
NAME_WIDTH = 28  # columns of the first cell of a shaded row
_SHADES = (
    (0, "#deebf7"),
    (0, "#c6dbef"),
    (0, "#9ecae1"),
    (0, "#6baed6"),
    (1, "#3182bd"),
    (1, "#08519c"),
)  # white text?, background


def print_table(console: Console, table: Table, stacked: bool = True) -> None:
    """Title, note and rows; nothing of a table without rows.

    `stacked` puts intervals and verdicts below their figures and leaves out what a narrow screen can do without.
    """
    if not table.rows:
        return
    console.print()
    console.print(Text(one_line(table.title), BEST))
    if table.note:
        console.print(Text(one_line(table.note), QUIET))
    console.print(grid_of(table, stacked))


def grid_of(table: Table, stacked: bool = True) -> Grid:
    """The head and the rows."""
    if stacked and table.spare:
        table = table.with_columns([index for index in range(len(table.head)) if index not in table.spare])
    shaded = any(cell.shade is not None for row in table.cells for cell in row)
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False, padding=0) if shaded else Grid(box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(table.head):
        _add_column(grid, name, table.is_text(index), shaded and index == 0, shaded)
    for number, row in enumerate(table.cells, start=1):
        is_sum = table.last_is_sum and number == len(table.rows)
        if is_sum:
            grid.add_section()
        figures = (_figure(table, cell, stacked, shaded) for cell in row[1:])
        grid.add_row(_heading(row[0]), *figures, style=BEST if is_sum else None)
    return grid


def _add_column(grid: Grid, name: str, text: bool, cut: bool, shaded: bool) -> None:
    header = Text(_spaced(name) if shaded and not cut else one_line(name))
    if cut:
        grid.add_column(header, max_width=NAME_WIDTH, no_wrap=True, overflow="ellipsis")
    else:
        grid.add_column(header, justify="left" if text else "right", overflow="fold")


def _heading(cell: Cell) -> Text:
    below = Text(f"\n  {one_line(cell.note)}", QUIET) if cell.note else Text()
    return Text(one_line(cell.text)).append_text(below)


def _figure(table: Table, cell: Cell, stacked: bool, shaded: bool) -> Text:
    """The figure with what qualifies it: below it, or after it where there is room."""
    if shaded:
        return Text(_spaced(cell.text), "" if cell.shade is None else _shade(cell.shade))
    below = stacked and not table.brief
    interval = one_line(cell.interval if below else f"[{cell.interval}]") if cell.interval else ""
    starred = cell.strong and not cell.verdict
    parts = [
        Text(one_line(cell.text) + (" *" if starred else ""), BEST if cell.strong else ""),
        Text(interval, QUIET),
        Text(one_line(table.verdict(cell)), VERDICTS.get(cell.verdict, "")),
        Text(one_line(cell.note), QUIET),
    ]
    return Text("\n" if below else " ").join(part for part in parts if part)


def _spaced(text: str) -> str:
    """A cell that brings its own space, so that shades meet."""
    return f" {one_line(text)} "


def _shade(share: float) -> str:
    """A style for a share of 0 to 1. Colour is never the only carrier: the number stands in the cell."""
    if share <= 0:
        return "dim"
    light, background = _SHADES[min(len(_SHADES) - 1, int(share * len(_SHADES)))]
    return f"{'#ffffff' if light else '#000000'} on {background}"
