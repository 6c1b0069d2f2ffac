"""What the run has brought on the test split: figures with intervals, verdicts, generations side by side."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import partial

import streamlit as st

from fccl import words
from fccl.pages.dashboard.readers import Hub
from fccl.pages.dashboard.widgets import chart, element, heading, html_table, note, nothing
from fccl.plain_text import one_line, visible
from fccl.records.evaluation import EvaluationReport
from fccl.view import charts
from fccl.view import evaluation_tables as tables
from fccl.view.charts import Measure
from fccl.view.evaluation_tables import Cell, Row
from fccl.view.values import RunView

CHARTS: dict[Measure, str] = {
    "exact": "Share of exact answers of every model with 95 % intervals",
    "preference": "Preference accuracy of every model with 95 % intervals",
    "perplexity": "Response perplexity of every model with 95 % intervals",
}
VERDICTS = {"better": "▲", "worse": "▼", "no significant difference": "≈"}
MOST_DETAILS = 30


def show(hub: Hub, view: RunView) -> None:
    """The report of this run, when there is one."""
    report = view.evaluation
    if report is None:
        nothing(
            "The evaluation appears when the run is finished. “fccl evaluate” makes it for a run that was started "
            "with --no-evaluate."
        )
        return
    names = [one_line(model.name) for model in report.models]
    drawn(hub, view, report)
    measures(report, names)
    generations(report)
    details(report, names)


def measures(report: EvaluationReport, names: Sequence[str]) -> None:
    """The main table, and every two models compared."""
    heading("On the test split")
    note(
        f"{report.sft_examples:,} instructions and {report.va_pairs:,} pairs that no client and no round has seen. "
        "Below each figure its 95 % bootstrap interval; the best of a row is marked ★."
    )
    html_table(
        "Measures of every model on the test split", ["", *names], [as_cells(row) for row in tables.measures(report)]
    )
    if report.comparisons:
        heading("What each phase brought")
        note("Paired differences on the same examples. A verdict needs an interval that leaves out no difference.")
        pairs = [f"{one_line(each.second)} against {one_line(each.first)}" for each in report.comparisons]
        html_table("Every two models compared", ["", *pairs], [as_cells(row) for row in tables.comparisons(report)])


def as_cells(row: Row) -> list[str]:
    """A row as HTML cells: label with its note, then each figure with interval and verdict."""
    return [html.escape(row.label) + small(row.note), *(cell_html(cell) for cell in row.cells)]


def cell_html(cell: Cell) -> str:
    figure = element("strong", f"{cell.text} ★") if cell.best else html.escape(cell.text)
    return (
        figure
        + small(f"[{cell.interval}]" if cell.interval else "")
        + small(f"{VERDICTS.get(cell.verdict, '')} {cell.verdict}".strip())
    )


def small(text: str) -> str:
    return element("span", text, "fccl-small") if text else ""


def drawn(hub: Hub, view: RunView, report: EvaluationReport) -> None:
    """The three measures that people quote."""
    for column, (measure, says) in zip(st.columns(3, gap="medium"), CHARTS.items(), strict=True):
        with column:
            chart(
                hub,
                view,
                f"evaluation {measure}",
                partial(charts.evaluation, report, measure),
                says,
                "Not measured.",
            )


def generations(report: EvaluationReport) -> None:
    """What every model answers to the same instructions."""
    examples = list(zip(*(model.generations for model in report.models), strict=False))
    if not examples:
        return
    heading("Answers side by side")
    head = ["instruction", "reference answer", *(one_line(model.name) for model in report.models)]
    rows = [
        [text(each[0].instruction), text(each[0].reference), *(text(said.greedy) for said in each)] for each in examples
    ]
    note(f"Greedy answers of at most {report.options.gen_tokens} tokens.")
    html_table("Answers of every model to the same instructions", head, rows)


def text(words_of_a_model: str) -> str:
    return html.escape(visible(words_of_a_model.strip())) or words.DASH


def details(report: EvaluationReport, names: Sequence[str]) -> None:
    """By topic, by flaw, by client: closed until somebody asks."""
    folded("By topic", "response perplexity of every model", names, tables.topic_perplexities(report))
    folded(
        "Exact answers by topic", "share of greedy answers that are right", names, tables.topic_exact_answers(report)
    )
    folded("By flaw of the rejected response", "preference accuracy of every model", names, tables.flaws(report))
    if report.clients:
        folded(
            "Each client's own update",
            "its last update on the whole test split",
            tables.CLIENT_COLUMNS,
            tables.clients(report),
        )
        folded(
            "Own update against the global model",
            "on each client's own mix of topics",
            tables.MIX_COLUMNS,
            tables.client_mixes(report),
        )


def folded(title: str, says: str, head: Sequence[str], rows: Sequence[Row]) -> None:
    if not rows:
        return
    with st.expander(title, key=f"details {title}"):
        more = (
            f" The first {MOST_DETAILS} of {len(rows)}; the others are in evaluation.md."
            if len(rows) > MOST_DETAILS
            else ""
        )
        note(f"{says[0].upper()}{says[1:]}.{more}")
        html_table(f"{title}: {says}", ["", *head], [as_cells(row) for row in rows[:MOST_DETAILS]])
