"""The pieces of every panel: a guard, charts, tables, text that stays text.

Whatever comes from a log goes through `element`, `html.escape` or a table. Streamlit reads Markdown in labels,
captions, metrics and messages: only sentences of this program stand there, and `escaped` what they quote.
"""

from __future__ import annotations

import html
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import pandas as pd
import streamlit as st
from streamlit.column_config import Column, NumberColumn

from fccl.display.plain_text import one_line, visible
from fccl.display.tables import Cell, Table
from fccl.display.words import DASH
from fccl.pages.dashboard.readers import Hub, edition
from fccl.pages.dashboard.vega import Spec, spec_of
from fccl.view.charts import Picture
from fccl.view.values import RunView

log = logging.getLogger("fccl.dashboard")
TABLE_ROWS = 10  # more are scrolled
COLUMNS = {  # how a column of this name looks in every table
    "round": NumberColumn(format="%d", alignment="left", width="small"),
    "client": NumberColumn(format="%d", alignment="left", width="small"),
    "process": NumberColumn(format="%d", alignment="left"),
    "loss": NumberColumn(format="%.3f"),
    "update norm": NumberColumn(format="%.3f"),
    "weight": NumberColumn(format="%.1f %%"),
    "prior": NumberColumn(format="%.1f %%"),
    "counted": NumberColumn(format="%.1f %%"),
    "standing": NumberColumn(format="%+.1f"),
    "share of samples": NumberColumn(format="%.1f %%"),
    "gain": NumberColumn(format="%+.1f"),
    "tokens/s": NumberColumn(format="localized"),
    "samples": NumberColumn(format="localized"),
    "steps": NumberColumn(format="localized"),
    "reason": Column(width="large"),
}
_MARKDOWN = re.compile(r"([!-/:-@\[-`{-~])")


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """A panel that fails is one line on the page and a traceback on the terminal; the others go on."""
    try:
        yield
    except Exception:
        log.exception("%s could not be shown", what)
        st.warning(
            f"{what} cannot be shown just now. The terminal of the dashboard says why.", icon=":material/error_outline:"
        )


def escaped(words: str) -> str:
    """Text of a log inside Markdown: every mark that Markdown or Streamlit could obey is spelt out."""
    return _MARKDOWN.sub(r"\\\1", one_line(words))


def element(tag: str, words: str, css: str = "") -> str:
    """An HTML element that holds `words` as text."""
    return (
        f'<{tag} class="{html.escape(css)}">{html.escape(words)}</{tag}>'
        if css
        else f"<{tag}>{html.escape(words)}</{tag}>"
    )


def heading(words: str) -> None:
    """A section's heading. It may quote a log."""
    st.html(element("h2", words, "fccl-heading"))


def note(words: str) -> None:
    """A quiet line. It may quote a log."""
    st.html(element("p", words, "fccl-note"))


def nothing(words: str) -> None:
    """A line in the place of what is not there yet, which says when it will be."""
    st.html(element("p", words, "fccl-nothing"))


def chart(
    hub: Hub,
    view: RunView,
    name: str,
    draw: Callable[[], Picture | None],
    says: str,
    nothing_yet: str,
    *more: object,
    height: int | None = None,
) -> None:
    """One chart, drawn anew only for a new edition of the run.

    `says` describes it to a screen reader; `more` is what it depends on beside the run; `height` in pixels is that of
    the plot alone.
    """

    def made() -> Spec | None:
        picture = draw()
        return None if picture is None else spec_of(picture, says, height, theme)

    theme = st.context.theme.type or "light"
    with guarded(name):
        spec = hub.picture((str(view.paths.root), edition(view), name, height, theme, *more), made)
        if spec is None:
            nothing(nothing_yet)
        else:
            st.vega_lite_chart(spec=spec, key=f"chart {name}")


def table(rows: pd.DataFrame, key: str, says: str, height: int = 400) -> None:
    """A table to scroll, sort and search. Its cells are text and numbers, never Markdown.

    `height` in pixels is that of a long one.
    """
    columns = {name: COLUMNS[name] for name in rows.columns if name in COLUMNS}
    tall: int | Literal["auto"] = "auto" if len(rows) <= TABLE_ROWS else height
    st.dataframe(rows, key=key, alt=says, hide_index=True, column_config=columns, placeholder=DASH, height=tall)


def titled_table(shown: Table | None) -> None:
    """A table with its title and its note, where there is one."""
    if shown is not None:
        heading(shown.title)
        note(shown.note)
        html_table(shown)


def html_table(shown: Table, says: str = "") -> None:
    """A small table to read. `says` describes it to a screen reader in the place of its title; all cells are text."""
    says = one_line(says or shown.title)
    top = "".join(f'<th scope="col">{_text(name)}</th>' for name in shown.head)
    body = "".join(_row_html(shown, row) for row in shown.cells)
    whole = (
        f'<table class="fccl-table">{element("caption", says, "fccl-hidden")}'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    )
    st.html(f'<div class="fccl-scroll" tabindex="0" role="region" aria-label="{html.escape(says)}">{whole}</div>')


def _row_html(shown: Table, row: Sequence[Cell]) -> str:
    first, *figures = (cell_html(shown, cell) for cell in row)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in figures)}</tr>'


def cell_html(shown: Table, cell: Cell) -> str:
    """The figure, and below it what qualifies it. The best of a row has a star, since weight alone is no sign."""
    star = " ★" if cell.strong and not cell.verdict else ""
    sign = f" {shown.verdict(cell)}" if shown.brief and cell.verdict else ""
    figure = _text(f"{cell.text}{star}{sign}")
    below = (f"[{cell.interval}]" if cell.interval else "", "" if shown.brief else shown.verdict(cell), cell.note)
    small = "".join(f'<span class="fccl-small">{_text(part)}</span>' for part in below if part)
    return (f"<strong>{figure}</strong>" if cell.strong else figure) + small


def _text(words: str) -> str:
    return html.escape(visible(words))
