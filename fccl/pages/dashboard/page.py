"""The page from top to bottom.

Streamlit runs `show` anew on every interaction, and when `pulse` has seen something new.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from fccl.errors import FcclError
from fccl.pages.dashboard import (
    after_run,
    clients,
    comparison,
    data,
    evaluation,
    exchange,
    header,
    influence,
    log,
    overview,
    two_runs,
)
from fccl.pages.dashboard.readers import Hub, hub_of
from fccl.pages.dashboard.widgets import escaped, guarded
from fccl.view.values import RunView

HERE = Path(__file__).parent
Tab = Callable[[Hub, RunView], None]
TABS: dict[str, Tab] = {
    "Overview": overview.show,
    "Influence": influence.show,
    "Clients": clients.show,
    "Evaluation": evaluation.show,
    "Methods": comparison.show,
    "Exchange": exchange.show,
    "Data": data.show,
    "After": after_run.show,
    "Log": log.show,
    "Two runs": two_runs.show,
}


def show(folders: Callable[[], tuple[Path, Path]]) -> None:
    """The whole page, for the `LOG_DIR` and `EXCHANGE_DIR` that `folders` returns; the `FcclError` that it raises is
    shown instead.
    """
    st.set_page_config(page_title="FCCL", page_icon=HERE / "icon.png", layout="wide")
    st.html(HERE / "style.css")
    try:
        log_dir, exchange_dir = folders()
    except FcclError as error:
        st.error(escaped(f"{error}: {error.hint}" if error.hint else str(error)))
        return
    with guarded("The page"):
        page(hub_of(log_dir, exchange_dir))


def page(hub: Hub) -> None:
    """Header, then one tab at a time: a tab that is not open costs nothing."""
    view = header.show(hub)
    if view is None:
        with guarded("Methods"):
            comparison.show(hub, hub.run())
        return
    absent = {"Methods"} if hub.compared() is None else set()
    absent |= {"Two runs"} if len(hub.runs()) < 2 else set()
    names = [name for name in TABS if name not in absent]
    for name, tab in zip(names, st.tabs(names, key="tab", on_change="rerun", bind="query-params"), strict=True):
        if tab.open:
            with tab, guarded(name):
                TABS[name](hub, view)
