"""The results of `fccl compare`: every method in every scenario, against FedAvg and against an oracle.

It belongs to no run.
"""

from __future__ import annotations

import streamlit as st

from fccl.display import words
from fccl.display.plain_text import one_line
from fccl.pages.dashboard.readers import Hub
from fccl.pages.dashboard.widgets import chart, element, heading, html_table, note
from fccl.records.comparison import CEILINGS, Comparison, ScenarioInfo
from fccl.view import charts
from fccl.view import comparison_tables as tables
from fccl.view.values import RunView

NO_BAD = "No client is bad in this scenario, so there is no oracle without bad clients and no gap to close."
NO_GAP = "No ceiling is significantly better than FedAvg in this scenario, so there is no gap to close."


def show(hub: Hub, view: RunView) -> None:
    """All scenarios beside each other, then one of them with its picture; nothing while there are no results."""
    found = hub.compared()
    if found is None:
        return
    results = found.results
    heading("Comparison of methods")
    note(
        one_line(" ".join(tables.lead(results))) + f" Written {words.moment(found.written)} to {hub.logs.compare.root}."
    )
    matrix = tables.matrix(results)
    html_table(matrix)
    note(matrix.note)
    scenario = chosen(results)
    heading(tables.heading(scenario, results.num_clients))
    ceiling = CEILINGS[results.ceiling]
    says = f"Share of the gap between FedAvg and the {ceiling} that each method closes, {one_line(scenario.title)}"
    no_gap = NO_GAP if scenario.bad_clients else NO_BAD
    chart(
        hub,
        view,
        "Gap closed",
        lambda: charts.gap_closed(results, scenario),
        says,
        no_gap,
        found.written,
        scenario.name,
    )
    table = tables.scenario_table(results, scenario).without_empty_columns()
    html_table(table, f"Every method, {table.title}")
    trouble(results, scenario)
    reading(results)


def chosen(results: Comparison) -> ScenarioInfo:
    """The scenario that is looked at: at first one with a gap to close, if there is any."""
    named = {scenario.name: scenario for scenario in results.scenarios}
    first = next((row.scenario for row in results.rows if row.share(results.ceiling) is not None), next(iter(named)))
    choice = st.selectbox(
        "Scenario",
        list(named),
        index=list(named).index(first),
        format_func=lambda name: one_line(named[name].title),
        key="scenario",
        width=420,
    )
    return named[choice]


def trouble(results: Comparison, scenario: ScenarioInfo) -> None:
    """The trouble with some seeds of some methods."""
    titles = {method.name: method.title for method in results.methods}
    rows = [row for row in results.rows if row.scenario == scenario.name]
    lines = [f"! {one_line(titles[row.method])}: {one_line(what)}" for row in rows for what in row.trouble]
    if lines:
        st.html("".join(element("p", line, "fccl-alert") for line in lines))


def reading(results: Comparison) -> None:
    """Notes on how to read the tables, closed until a reader opens them."""
    with st.expander("How to read it", key="how to read a comparison"):
        for line in tables.notes(results):
            note(line)
