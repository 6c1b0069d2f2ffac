"""Two runs beside each other: curves, figures, and the settings in which they differ."""

from __future__ import annotations

import time

import streamlit as st

from fccl import phases
from fccl.display import words
from fccl.display.tables import Cell, Table
from fccl.pages.dashboard.header import other_run
from fccl.pages.dashboard.readers import Hub, edition
from fccl.pages.dashboard.widgets import chart, heading, html_table, note, nothing
from fccl.specs import PHASES
from fccl.view import charts, sentences
from fccl.view import evaluation_tables as tables
from fccl.view.status import run_status
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
    rows = tuple((label, *(column[label] for column in columns)) for label in columns[0])
    html_table(Table("Figures of both runs", ("", view.run_id, other.run_id), rows))


def summary(view: RunView) -> dict[str, Cell | str]:
    """One run's column: its cells by label."""
    found = run_status(view, time.time())
    sft = view.rounds[view.rounds["phase"] == "sft"]["validation_loss"].dropna()
    cells: dict[str, Cell | str] = {
        "state": sentences.STANDING_WORDS[found.standing],
        "rounds complete": f"{found.round} of {found.total_rounds}",
        "validation loss after FedIT": words.loss(float(sft.iloc[-1]) if len(sft) else None),
        "validation preference loss": words.loss(found.validation_loss if found.validation_phase == "va" else None),
        "preference accuracy, validation": sentences.percent(found.preference_accuracy),
        "effective clients, last round": words.effective(found.effective_clients, found.aggregated),
        "exclusions": f"{len(view.exclusions):,}",
        "adapters sent, up and down": _sent(view),
        "time of all rounds": words.duration(float(view.rounds["seconds"].sum()) if len(view.rounds) else None),
    }
    return cells | final_model(view)


def _sent(view: RunView) -> str:
    """The bytes of adapters in all rounds, as UPDATE_CODEC writes them."""
    if not len(view.rounds) or view.rounds["bytes_up"].isna().any():
        return words.DASH
    return " and ".join(words.size(int(view.rounds[name].sum())) for name in ("bytes_up", "bytes_down"))


def final_model(view: RunView) -> dict[str, Cell | str]:
    """The last model of the evaluation: its figures with their intervals."""
    wanted = ("response perplexity", "exact answers", "preference accuracy")
    found: dict[str, Cell | str] = {f"{name}, test split": words.DASH for name in wanted}
    if view.evaluation is not None:
        for row in reversed(tables.measures(view.evaluation).cells):
            if row[0].text in wanted:
                found[f"{row[0].text}, test split"] = Cell(row[-1].text, row[-1].interval)
    return found


def settings(view: RunView, other: RunView) -> None:
    """The settings that differ."""
    heading("Settings that differ")
    rows = different(view, other)
    if not rows:
        nothing("None: the two runs were started with the same settings.")
        return
    note("Folders are left out.")
    html_table(Table("Settings that differ", ("", view.run_id, other.run_id), rows))


def different(view: RunView, other: RunView) -> tuple[tuple[str, str, str], ...]:
    """Name and both values of every setting that differs."""
    mine, theirs = (each.info.settings if each.info else {} for each in (view, other))
    names = [name for name in {**mine, **theirs} if name not in PLACES and mine.get(name) != theirs.get(name)]
    return tuple((name.upper(), mine.get(name, words.DASH), theirs.get(name, words.DASH)) for name in names)
