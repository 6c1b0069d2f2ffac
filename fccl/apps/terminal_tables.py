"""Tables on the terminal. What stands out has a sign beside its colour; no text acts on the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.table import Table as Grid
from rich.text import Text

from fccl.apps.table_widths import Need, need_of, parts, room_taken, widths
from fccl.display.plain_text import one_line
from fccl.display.tables import Cell, Table

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
    for part in _parts(_seen(table, stacked), console.width, stacked):
        console.print(_grid(part, console.width, stacked))


def _seen(table: Table, stacked: bool) -> Table:
    """The table without the columns that a narrow screen can do without."""
    if not (stacked and table.spare):
        return table
    return table.with_columns([index for index in range(len(table.head)) if index not in table.spare])


def _parts(table: Table, width: int, stacked: bool) -> list[Table]:
    """The table, in parts where its columns do not fit side by side."""
    shaded = _is_shaded(table)
    needs = [_need(table, column, stacked, shaded) for column in range(len(table.head))]
    names = next((index for index in range(1, len(table.head)) if index not in table.words), 1)
    return [table.with_columns(places) for places in parts(needs, names, width, _gap(shaded))]


def _grid(table: Table, width: int, stacked: bool) -> Grid:
    """The head and the rows, in columns that break no word of a head."""
    shaded = _is_shaded(table)
    needs = [_need(table, column, stacked, shaded) for column in range(len(table.head))]
    room = width - room_taken(len(needs), _gap(shaded))
    fixed = None if sum(need.lines for need in needs) <= room else widths(needs, room)
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False, padding=0) if shaded else Grid(box=SIMPLE_HEAD, pad_edge=False)
    for column in range(len(table.head)):
        _add_column(grid, table, column, shaded, fixed[column] if fixed else None)
    for number, row in enumerate(table.cells, start=1):
        is_sum = table.last_is_sum and number == len(table.rows)
        if is_sum:
            grid.add_section()
        figures = (_figure(table, cell, stacked, shaded) for cell in row[1:])
        grid.add_row(_heading(row[0]), *figures, style=BEST if is_sum else None)
    return grid


def _is_shaded(table: Table) -> bool:
    return any(cell.shade is not None for row in table.cells for cell in row)


def _gap(shaded: bool) -> int:
    """Signs between two columns; shaded ones bring their own space."""
    return 1 if shaded else 3


def _need(table: Table, column: int, stacked: bool, shaded: bool) -> Need:
    cells = [row[column] for row in table.cells]
    texts = [_figure(table, cell, stacked, shaded) if column else _heading(cell) for cell in cells]
    head = _head(table, column, shaded)
    return need_of(head, texts, table.is_text(column), NAME_WIDTH if shaded and column == 0 else None)


def _head(table: Table, column: int, shaded: bool) -> Text:
    return Text(_spaced(table.head[column]) if shaded and column else one_line(table.head[column]))


def _add_column(grid: Grid, table: Table, column: int, shaded: bool, width: int | None) -> None:
    header = _head(table, column, shaded)
    if shaded and column == 0:
        grid.add_column(header, width=width, max_width=NAME_WIDTH, no_wrap=True, overflow="ellipsis")
    else:
        side: JustifyMethod = "left" if table.is_text(column) else "right"
        grid.add_column(header, width=width, justify=side, overflow="fold")


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
