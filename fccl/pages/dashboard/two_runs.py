"""Two runs beside each other: curves, figures, and the settings in which they differ."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence

import streamlit as st

from fccl import phases, words
from fccl.pages.dashboard.evaluation import cell_html
from fccl.pages.dashboard.header import other_run
from fccl.pages.dashboard.readers import Hub, edition
from fccl.pages.dashboard.widgets import chart, heading, html_table, note, nothing
from fccl.plain_text import one_line
from fccl.specs import PHASES
from fccl.view import charts, sentences
from fccl.view import evaluation_tables as tables
from fccl.view.status import glance
from fccl.view.values import RunView

PLACES = frozenset({"log_dir", "data_dir", "exchange_dir", "keys_dir", "state_dir"})  # where, not what


def show(hub: Hub, view: RunView) -> None:
    """This run and the one chosen under "Compare with"."""
    paths = other_run(hub.runs())
    other = hub.run(paths) if paths is not None else None
    if other is None or not other.exists:
        nothing(
            "Choose a second run under “Compare with” at the top of the page. Earlier runs are kept in LOG_DIR/runs/."
        )
        return
    curves(hub, view, other)
    figures(view, other)
    settings(view, other)


def curves(hub: Hub, view: RunView, other: RunView) -> None:
    """The validation losses of both phases, overlaid."""
    for column, phase in zip(st.columns(len(PHASES), gap="medium"), PHASES, strict=True):
        with column:
            chart(
                hub,
                view,
                f"overlay {phase}",
                lambda phase=phase: charts.overlay(view, other, phase),  # type: ignore[misc]
                f"Validation loss of both runs by round, {phases.title(phase)}",
                f"Neither run has a complete round of {phases.title(phase)}.",
                edition(other),
            )


def figures(view: RunView, other: RunView) -> None:
    """The figures of the last round, and the evaluation of the final model."""
    heading("Figures")
    columns = [summary(each) for each in (view, other)]
    rows = [[html.escape(label), *(column[label] for column in columns)] for label in columns[0]]
    html_table("Figures of both runs", ["", one_line(view.run_id), one_line(other.run_id)], rows)


def summary(view: RunView) -> dict[str, str]:
    """One run's column, as HTML cells by label."""
    found = glance(view, time.time())
    sft = view.rounds[view.rounds["phase"] == "sft"]["validation_loss"].dropna()
    cells = {
        "state": sentences.STANDING_WORDS[found.standing],
        "rounds complete": f"{found.round} of {found.total_rounds}",
        "validation loss after FedIT": words.loss(float(sft.iloc[-1]) if len(sft) else None),
        "validation DPO loss": words.loss(found.validation_loss if found.validation_phase == "va" else None),
        "preference accuracy, validation": sentences.percent(found.preference_accuracy),
        "effective clients, last round": words.effective(found.effective_clients, found.aggregated),
        "exclusions": f"{len(view.exclusions):,}",
        "time of all rounds": words.duration(float(view.rounds["seconds"].sum()) if len(view.rounds) else None),
    }
    return {label: html.escape(cell) for label, cell in cells.items()} | final_model(view)


def final_model(view: RunView) -> dict[str, str]:
    """The last model of the evaluation: what `EvaluationReport` says of it, with intervals."""
    wanted = ("response perplexity", "exact answers", "preference accuracy")
    found = {f"{name}, test split": html.escape(words.DASH) for name in wanted}
    if view.evaluation is not None:
        for row in reversed(tables.measures(view.evaluation)):
            if row.label in wanted:
                last = row.cells[-1]
                found[f"{row.label}, test split"] = cell_html(tables.Cell(last.text, last.interval))
    return found


def settings(view: RunView, other: RunView) -> None:
    """Only those that differ."""
    heading("Settings that differ")
    rows = different(view, other)
    if not rows:
        nothing("None: the two runs were started with the same settings.")
        return
    note("Folders are left out.")
    html_table(
        "Settings that differ",
        ["", one_line(view.run_id), one_line(other.run_id)],
        [[html.escape(cell) for cell in row] for row in rows],
    )


def different(view: RunView, other: RunView) -> Sequence[tuple[str, str, str]]:
    """Name and both values of every setting that differs."""
    mine, theirs = (each.info.settings if each.info else {} for each in (view, other))
    names = [name for name in {**mine, **theirs} if name not in PLACES and mine.get(name) != theirs.get(name)]
    return [
        (one_line(name.upper()), one_line(mine.get(name, words.DASH)), one_line(theirs.get(name, words.DASH)))
        for name in names
    ]
