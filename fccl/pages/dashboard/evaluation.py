"""The evaluation on the test split: figures with intervals, verdicts, generations side by side."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import streamlit as st

from fccl.display import words
from fccl.display.plain_text import one_line
from fccl.display.tables import Table
from fccl.pages.dashboard.readers import Hub
from fccl.pages.dashboard.widgets import chart, guarded, heading, html_table, note, nothing
from fccl.records.evaluation import EvaluationReport
from fccl.view import charts
from fccl.view import evaluation_tables as tables
from fccl.view.audit_tables import AUDIT_LEAD, audit_tables, closed_lines
from fccl.view.charts import Measure
from fccl.view.forecast_tables import after_table
from fccl.view.taken import actual_of
from fccl.view.values import RunView

CHARTS: dict[Measure, str] = {
    "exact": "Share of exact answers of every model with 95 % intervals",
    "preference": "Preference accuracy of every model with 95 % intervals",
    "perplexity": "Response perplexity of every model with 95 % intervals",
}
MOST_DETAILS = 30


def show(hub: Hub, view: RunView) -> None:
    """The report of this run, when there is one."""
    evaluated(hub, view)
    audit(view)
    plan(view)


def evaluated(hub: Hub, view: RunView) -> None:
    """Base, SFT and FedVA on the test split."""
    report = view.evaluation
    if report is None:
        nothing(
            "The evaluation appears when the run is finished. “fccl evaluate” makes it for a run that was started "
            "with --no-evaluate."
        )
        return
    drawn(hub, view, report)
    measures(report)
    generations(report)
    details(report)


def audit(view: RunView) -> None:
    """Attacks on a federation like this one, where `fccl audit` lies beside the run."""
    if view.audit is None:
        return
    found, *costs = audit_tables(view.audit)
    heading(found.title)
    for line in (AUDIT_LEAD, found.note, *closed_lines(view.audit)):
        note(one_line(line))
    html_table(found)
    for table in costs:
        html_table(table)


def plan(view: RunView) -> None:
    """The plan that was made for the run, beside what it took so far."""
    if view.plan is None:
        return
    with guarded("The plan"):
        found = after_table(view.plan, actual_of(view.paths))
        heading(found.title)
        if found.note:
            note(found.note)
        html_table(found)


def measures(report: EvaluationReport) -> None:
    """The main table, and every two models compared."""
    heading("On the test split")
    table = tables.measures(report)
    note(
        f"{words.plural(report.sft_examples, 'instruction')} and {words.plural(report.va_pairs, 'pair')} that no "
        "client and no round has seen. "
        f"{table.note} The best of a row is marked ★."
    )
    html_table(table, "Measures of every model on the test split")
    if report.comparisons:
        heading("What each phase brought")
        note("Paired differences on the same examples. A verdict needs an interval that leaves out no difference.")
        html_table(tables.differences(report), "Every two models compared")


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
    """The answers of every model to the same instructions."""
    examples = list(zip(*(model.generations for model in report.models), strict=False))
    if not examples:
        return
    heading("RunAnswers side by side")
    head = ("instruction", "reference answer", *tables.names(report))
    rows = tuple(
        (text(each[0].instruction), text(each[0].reference), *(text(said.greedy) for said in each)) for each in examples
    )
    note(f"Greedy answers of at most {report.options.gen_tokens} tokens.")
    html_table(Table("RunAnswers of every model to the same instructions", head, rows))


def text(words_of_a_model: str) -> str:
    return words_of_a_model.strip() or words.DASH


def details(report: EvaluationReport) -> None:
    """The tables by topic, by flaw and by client, closed until a reader opens them."""
    for table in tables.details(report):
        count = len(table.rows)
        more = f" The first {MOST_DETAILS} of {count}; the others are in evaluation.md." if count > MOST_DETAILS else ""
        with st.expander(table.title, key=f"details {table.title}"):
            if said := f"{table.note}{more}".strip():
                note(said)
            html_table(replace(table, rows=table.rows[:MOST_DETAILS]))
