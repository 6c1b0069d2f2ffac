"""The end of the logs, line by line."""

from __future__ import annotations

from typing import Literal

import streamlit as st

from fccl.display import words
from fccl.display.plain_text import visible
from fccl.pages.dashboard.readers import Hub
from fccl.pages.dashboard.widgets import guarded, note, nothing
from fccl.view.runs import tail
from fccl.view.values import RunView

EVERY_S = 1.0
Which = Literal["progress", "client_metrics"]
FILES: dict[Which, str] = {"progress": "progress.jsonl", "client_metrics": "client_metrics.jsonl"}
COUNTS = (50, 200, 1000)
LONGEST = 2000  # characters of a line; with many clients a line is much longer than anybody reads


@st.fragment(run_every=EVERY_S)
def show(hub: Hub, view: RunView) -> None:
    """The newest lines first, those that contain the filter."""
    with guarded("The log"):
        with st.container(horizontal=True, vertical_alignment="bottom"):
            which: Which = st.segmented_control(
                "Log", list(FILES), format_func=FILES.__getitem__, key="log", default="progress", required=True
            )
            count = st.selectbox("Lines", COUNTS, key="lines", width=110)
            wanted = st.text_input("Filter", key="filter", placeholder="only lines that contain …", width=320)
        lines = tail(view, which, count, wanted)
        unreadable = (
            f" {words.plural(view.unreadable, 'line')} of both logs could not be read." if view.unreadable else ""
        )
        if not lines:
            nothing(f"No line of {FILES[which]} contains “{wanted}”." if wanted else f"{FILES[which]} has no line yet.")
            return
        note(f"{words.plural(len(lines), 'line')}, newest first. The files count rounds from 0.{unreadable}")
        st.code(
            "\n".join(shortened(line) for line in reversed(lines)),
            language=None,
            height=480,
            wrap_lines=True,
            line_numbers=True,
        )


def shortened(line: str) -> str:
    """A line, safe to show, and cut where it is very long."""
    more = len(line) - LONGEST
    return visible(line[:LONGEST]) + (f" … and {more:,} characters more" if more > 0 else "")
