"""The section of a report on what was asked after the run."""

from __future__ import annotations

from fccl.display.tables import Table
from fccl.pages.report.figures import Figures
from fccl.pages.report.parts import Figure, Section
from fccl.view import charts
from fccl.view.after import check_table, forgotten_table, influence_tables, matrix_tables, replay_table
from fccl.view.answers import RunAnswers


def section(answers: RunAnswers, draw: Figures) -> Section:
    """Influence, replays, the check, clients that were taken out."""
    return Section("after", "After the run", LEAD, figures(answers, draw), tuple(tables(answers)))


LEAD = "What was asked about the finished run: “fccl replay”, “fccl verify”, “fccl forget”."


def figures(answers: RunAnswers, draw: Figures) -> tuple[Figure, ...]:
    """A chart for each loss that influence was measured on."""
    if answers.influence is None:
        return ()
    found: tuple[Figure, ...] = ()
    for place in range(len(answers.influence.measures)):
        found += draw.draw(charts.final_influence(answers.influence, place), answers.influence.says)
    return found


def tables(answers: RunAnswers) -> list[Table]:
    """All tables, in the order in which people ask."""
    return [
        *(influence_tables(answers.influence) if answers.influence else ()),
        *(matrix_tables(answers.matrix) if answers.matrix else ()),
        *map(replay_table, answers.replays),
        *([check_table(answers.check)] if answers.check else ()),
        *map(forgotten_table, answers.forgotten),
    ]
