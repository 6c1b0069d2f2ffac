"""The clients: what each is doing, which were excluded and why."""

from __future__ import annotations

import time

import pandas as pd
import streamlit as st

from fccl import phases
from fccl.display import words
from fccl.display.plain_text import one_line
from fccl.pages.dashboard.readers import Hub
from fccl.pages.dashboard.widgets import TABLE_ROWS, guarded, heading, note, nothing, table, titled_table
from fccl.paths import LogPaths
from fccl.view import sentences
from fccl.view.late import late_table
from fccl.view.members import members_table
from fccl.view.origins import declared_note
from fccl.view.own_tests import own_tests_table
from fccl.view.sites import sites_table
from fccl.view.status import original_clients, run_status
from fccl.view.values import ClientRow, RunView

EVERY_S = 1.0
NEWEST = 1000  # exclusions and trainings in a table
TALL_PX = 290
URGENCY = ("failed", "dead", "late", "training", "waiting", "done", "declined")
BRIEF = ("client", "state", "step", "last heard")
EVERYTHING = ("client", "state", "last heard", "round", "step", "loss", "tokens/s", "host", "process")


def show(hub: Hub, view: RunView) -> None:
    """Heartbeats, exclusions, and how the trainings went."""
    heading("Clients now")
    beats(hub, view.paths, EVERYTHING)
    if view.sites is not None:
        sites(hub, view.paths)
    for said in (sentences.declines(view.declines), declared_note(view.manifest, view.info)):
        if said:
            note(said)
    for found in (own_tests_table(view.own_tests), members_table(view)):
        titled_table(found)
    exclusions(view)
    titled_table(late_table(view))
    trainings(view)


@st.fragment(run_every=EVERY_S)
def beats(hub: Hub, paths: LogPaths, columns: tuple[str, ...]) -> None:
    """A row for every client, kept up to date by itself."""
    with guarded("The clients"):
        view = hub.run(paths)
        rows = in_order(run_status(view, time.time()).clients)
        if not rows:
            nothing("No client has been heard of yet.")
            return
        table(
            pd.DataFrame([client_row(row) for row in rows], columns=columns),
            f"beats {len(columns)}",
            "What each client is doing",
            height=TALL_PX,
        )
        if originals := sorted(original_clients(view)):
            note(
                f"No heartbeat is expected of {', '.join(f'client {client}' for client in originals)} "
                "(ORIGINAL_CLIENTS)."
            )


@st.fragment(run_every=EVERY_S)
def sites(hub: Hub, paths: LogPaths) -> None:
    """The sites of a run over Flower, kept up to date by itself."""
    with guarded("The sites"):
        titled_table(sites_table(hub.run(paths), time.time()))


def in_order(rows: tuple[ClientRow, ...]) -> list[ClientRow]:
    """The rows by client number; where the table has to be scrolled, the most urgent standing first."""
    return sorted(rows, key=lambda row: (URGENCY.index(row.standing) if len(rows) > TABLE_ROWS else 0, row.client))


def client_row(row: ClientRow) -> dict[str, object]:
    """The cells of one client, by column; None where its heartbeat does not say."""
    said = row.status
    return {
        "client": row.client,
        "state": sentences.client_state(row),
        "last heard": words.ago(row.age_s),
        "round": None if said is None else said.round + 1,
        "step": f"{said.step} of {said.steps}" if said is not None and said.steps else None,
        "loss": None if said is None else said.loss,
        "tokens/s": round(said.tokens_per_second) if said is not None and said.tokens_per_second else None,
        "host": one_line(said.host) if said is not None and said.host else None,
        "process": said.pid if said is not None and said.pid else None,
    }


def exclusions(view: RunView) -> None:
    """The excluded clients, newest first."""
    heading("Failures and exclusions")
    if view.exclusions.empty:
        nothing("None: no client was excluded from any round so far.")
        return
    rows = view.exclusions.iloc[::-1].head(NEWEST)
    shown = pd.DataFrame(
        {
            "round": rows["round"] + 1,
            "phase": rows["phase"].map(phases.title),
            "client": rows["client"],
            "reason": rows["reason"].map(one_line),
        }
    )
    by_client = view.exclusions.groupby("client").size().sort_values(ascending=False)
    most = ", ".join(f"client {client}: {count}" for client, count in by_client.head(5).items())
    note(f"{words.plural(len(view.exclusions), 'exclusion')} so far ({most}).")
    table(shown, "exclusions", "Clients excluded from a round, and why")


def trainings(view: RunView) -> None:
    """The durations and speeds of local trainings, by round; newest first."""
    if view.metrics.empty:
        return
    heading("Local trainings")
    rows = view.metrics.iloc[::-1].head(NEWEST)
    shown = pd.DataFrame(
        {
            "round": rows["round"] + 1,
            "phase": rows["phase"].map(phases.title),
            "client": rows["client"],
            "loss": rows["avg_loss"],
            "samples": rows["num_samples"],
            "time": rows["seconds"].map(words.duration),
            "steps": rows["steps"],
            "tokens/s": rows["tokens_per_second"].round(),
            "cut to fit": rows["truncated"],
            "update norm": rows["update_norm"],
        }
    )
    note("Newest first; loss over the last local epoch, norm of (update − global adapter).")
    table(shown, "trainings", "Every local training, newest first")
