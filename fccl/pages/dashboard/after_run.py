"""The answers to questions after the run: who mattered, replays, the check, clients that were taken out."""

from __future__ import annotations

from fccl.display.plain_text import one_line
from fccl.display.tables import Table
from fccl.pages.dashboard.readers import Hub
from fccl.pages.dashboard.widgets import chart, heading, html_table, note, nothing
from fccl.records.after import Influence
from fccl.view import charts
from fccl.view.after import check_table, forgotten_table, influence_tables, matrix_tables, replay_table
from fccl.view.answers import read_answers
from fccl.view.values import RunView

NOTHING = (
    "Nothing was asked about this run yet. When it is finished, “fccl replay --influence” says who mattered, "
    "“fccl replay” what another rule would have made of it, and “fccl verify” checks the result."
)


def show(hub: Hub, view: RunView) -> None:
    """All answers, in the order in which people ask."""
    answers = read_answers(view.paths, view.run_id)
    if not answers.any:
        nothing(NOTHING)
        return
    if answers.influence:
        mattered(hub, view, answers.influence)
    for table in matrix_tables(answers.matrix) if answers.matrix else ():
        titled(table)
    for replay in answers.replays:
        titled(replay_table(replay))
    if answers.check:
        titled(check_table(answers.check))
    for forgotten in answers.forgotten:
        titled(forgotten_table(forgotten))


def mattered(hub: Hub, view: RunView, influence: Influence) -> None:
    """A chart and a table for each loss of the final model."""
    for place, table in enumerate(influence_tables(influence)):
        chart(
            hub,
            view,
            table.title,
            lambda place=place: charts.final_influence(influence, place),  # type: ignore[misc]
            f"{table.title}: Shapley value of every client, and what leaving it out costs",
            NOTHING,
            influence.time,
        )
        titled(table)


def titled(table: Table) -> None:
    """A table with its title and its note above it."""
    heading(one_line(table.title))
    note(one_line(table.note))
    html_table(table)
