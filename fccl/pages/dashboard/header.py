"""The top of the page: the pickers of runs, the state of the run, and the pulse that keeps the page up to date."""

from __future__ import annotations

import html
import time
from collections.abc import Hashable, Sequence

import streamlit as st

from fccl.display import words
from fccl.display.plain_text import one_line
from fccl.pages.dashboard import tiles
from fccl.pages.dashboard.readers import Hub, edition
from fccl.pages.dashboard.widgets import element, guarded
from fccl.paths import LogPaths
from fccl.view import sentences
from fccl.view.status import run_status
from fccl.view.values import ClientRow, ClientStanding, RunEntry, RunStatus, RunView

EVERY_S = 1.0
CURRENT, NO_RUN = "current", "none"
PICKER_PX = 215
WAY_ON = "What is complete is kept. “fccl run --resume”, or the orchestrator started again, goes on from there."
MOST_ALERTS = 3  # of one kind
SOME = 8
PRESSING: tuple[ClientStanding, ...] = ("failed", "dead", "late")


def show(hub: Hub) -> RunView | None:
    """The state of the run, beside the pickers. Returns the chosen run, or None when there is none yet."""
    runs = hub.runs()
    with st.container(horizontal=True, vertical_alignment="top", key="head"):
        words_first = st.container(key="headline")
        paths = pickers(runs)
    view = hub.run(paths)
    st.session_state["seen"] = what_is_there(hub, view)
    st.set_page_config(page_title=sentences.title(run_status(view, time.time())))
    with words_first:
        headline(hub, paths)
    pulse(hub, paths)
    return view if view.exists else None


def pickers(runs: tuple[RunEntry, ...]) -> LogPaths | None:
    """The folder of the run that is chosen; None is the one in `LOG_DIR`, and follows it.

    A single run needs no picker.
    """
    if len(runs) < 2:
        return None
    folders = {entry.run_id: entry.paths for entry in runs if not entry.current}
    label = {CURRENT: "The current run", NO_RUN: "No other run"}

    def name(choice: str) -> str:
        return label.get(choice, one_line(choice))

    with st.container(horizontal=True, key="pickers", width="content"):
        chosen = st.selectbox(
            "Run", [CURRENT, *folders], format_func=name, key="run", bind="query-params", width=PICKER_PX
        )
        others = [choice for choice in (CURRENT, *folders) if choice != chosen]
        st.selectbox(
            "Compare with", [NO_RUN, *others], format_func=name, key="other", on_change=open_comparison, width=PICKER_PX
        )
    return folders.get(chosen)


def other_run(runs: tuple[RunEntry, ...]) -> LogPaths | None:
    """The folder of the run that is to be compared with, if one was chosen."""
    chosen = st.session_state.get("other", NO_RUN)
    return next((entry.paths for entry in runs if chosen == (CURRENT if entry.current else entry.run_id)), None)


def open_comparison() -> None:
    """Show the comparison when a second run is chosen."""
    if st.session_state["other"] != NO_RUN:
        st.session_state["tab"] = "Two runs"
    elif st.session_state.get("tab") == "Two runs":
        st.session_state["tab"] = "Overview"


def what_is_there(hub: Hub, view: RunView) -> Hashable:
    """A value that changes when the rest of the page has to be drawn anew."""
    return edition(view), hub.runs(), hub.compared()


@st.fragment(run_every=EVERY_S)
def headline(hub: Hub, paths: LogPaths | None) -> None:
    """The state of the run, in words."""
    with guarded("The state of the run"):
        view, now = hub.run(paths), time.time()
        found = run_status(view, now)
        said = sentences.sentence(found, f"{hub.logs.root.name}/", silence(view, now)) + no_evaluation_yet(found, view)
        more = element("p", WAY_ON, "fccl-under") if found.standing in ("failed", "interrupted") else ""
        st.html(element("h1", said, "fccl-sentence") + element("p", under(view), "fccl-under") + more)


@st.fragment(run_every=EVERY_S)
def pulse(hub: Hub, paths: LogPaths | None) -> None:
    """Progress and figures; the whole page anew when the records have changed."""
    with guarded("The figures of the run"):
        view = hub.run(paths)
        if what_is_there(hub, view) != st.session_state.get("seen"):
            st.rerun()
        if not view.exists:
            empty(hub)
            return
        now = time.time()
        found = run_status(view, now)
        st.progress(min(1.0, max(0.0, found.progress)))
        tiles.show(view, found, now)
        if found.standing in ("running", "silent"):
            alerts(found, view)


def silence(view: RunView, now: float) -> float | None:
    """The seconds since the last news of the run's work: clients that beat while they wait do not count."""
    times = [view.heard_at(status) for status in view.statuses if status.state == "training"]
    last = max([*times, (tiles.last_sign(view) or 0.0) if view.written is None else view.written])
    return max(0.0, now - last) if last else None


def no_evaluation_yet(found: RunStatus, view: RunView) -> str:
    """A sentence while a finished run has no evaluation yet; empty otherwise."""
    asked = view.info is not None and view.info.settings.get("evaluate") == "True"
    return (
        " The evaluation is not there yet."
        if found.standing == "finished" and asked and view.evaluation is None
        else ""
    )


def under(view: RunView) -> str:
    """The run's identity."""
    if view.info is None:
        return ""
    settings = view.info.settings
    parts = [
        one_line(view.run_id),
        one_line(settings.get("model_name", "")),
        f"started {words.moment(view.info.created)}",
    ]
    return " · ".join(part for part in parts if part)


def empty(hub: Hub) -> None:
    """The page without a run: the folder that it looks at, and the commands that begin one."""
    there = "holds no run so far" if hub.logs.root.is_dir() else "does not exist yet"
    code = [
        element("code", command)
        for command in ("fccl run", "fccl orchestrator", "fccl client --client-id 0", "--log-dir")
    ]
    st.html(
        f'<div class="fccl-nothing"><p>{html.escape(str(hub.logs.root))} {there}. This page shows a run as soon as '
        "it begins:</p>"
        f"<ul><li>{code[0]} for one in a single process,</li><li>or {code[1]} and {code[2]}, 1, 2 … in terminals of "
        "their own.</li></ul>"
        f"<p>If it is in another folder, start the dashboard with {code[3]}.</p></div>"
    )


def alerts(found: RunStatus, view: RunView) -> None:
    """Clients that hold the round up or were excluded from the last one.

    A line each while they are few, else a line for every kind.
    """
    lines = [
        line
        for standing in PRESSING
        for line in pressing(standing, [row for row in found.clients if row.standing == standing])
    ]
    last = view.exclusions[view.exclusions["round"] == found.round - 1]
    lines += excluded(found.round, last["client"].tolist(), last["reason"].tolist())
    if lines:
        st.html("".join(element("p", line, "fccl-alert") for line in lines))


def pressing(standing: ClientStanding, rows: Sequence[ClientRow]) -> list[str]:
    """Lines about the clients of one standing."""
    symbol, words_for_it = sentences.CLIENT_WORDS[standing].split(" ", 1)
    if len(rows) > MOST_ALERTS:
        return [f"{symbol} {len(rows)} clients: {words_for_it} ({some([row.client for row in rows])})"]
    return [f"{symbol} Client {row.client}: {words_for_it}{since(row)}" for row in rows]


def since(row: ClientRow) -> str:
    """The age of a client's last heartbeat, and what it was doing then, in words."""
    age = f" for {words.duration(row.age_s)}" if row.age_s is not None and row.standing != "failed" else ""
    if row.status is None or row.status.state != "training":
        return age
    step = f" at step {row.status.step} of {row.status.steps}" if row.status.steps else ""
    return f"{age}, last seen in round {row.status.round + 1}{step}"


def excluded(number: int, clients: Sequence[int], reasons: Sequence[str]) -> list[str]:
    """Lines about the clients that were excluded from round `number`, counted from 1."""
    if len(clients) > MOST_ALERTS:
        who = f"{len(clients)} clients ({some(clients)})"
        return [f"! {who} were excluded from round {number}; the reasons are under Clients"]
    return [
        f"! Client {client} was excluded from round {number}: {one_line(reason)}"
        for client, reason in zip(clients, reasons, strict=True)
    ]


def some(numbers: Sequence[int]) -> str:
    """The first few of many client numbers."""
    shown = ", ".join(map(str, numbers[:SOME]))
    return shown + (f" and {len(numbers) - SOME} more" if len(numbers) > SOME else "")
