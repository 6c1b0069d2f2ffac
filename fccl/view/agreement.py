"""The agreement of weights with exact Shapley values, as a table of a comparison."""

from __future__ import annotations

from fccl.records.comparison import Comparison, Outcome
from fccl.tables import Cell, Table
from fccl.words import DASH

NOTE = (
    "Spearman's rank correlation of how much each change counted with its exact Shapley value on the server's learn "
    "split, mean over rounds and seeds: 1 is the same order, 0 none, -1 the opposite."
)


def agreement_tables(comparison: Comparison) -> list[Table]:
    """One table, methods by scenarios; none where nobody asked for it."""
    scenarios = [scenario for scenario in comparison.scenarios if _told(comparison, scenario.name)]
    if not scenarios:
        return []
    rows: tuple[tuple[Cell | str, ...], ...] = tuple(
        (method.title, *(_cell(comparison.row(scenario.name, method.name)) for scenario in scenarios))
        for method in comparison.methods
        if any(row.method == method.name and row.agreement is not None for row in comparison.rows)
    )
    head = ("method", *(scenario.title for scenario in scenarios))
    return [Table("Agreement with exact Shapley values", head, rows, NOTE)]


def _told(comparison: Comparison, scenario: str) -> bool:
    return any(row.scenario == scenario and row.agreement is not None for row in comparison.rows)


def _cell(row: Outcome | None) -> Cell:
    return Cell(DASH if row is None or row.agreement is None else f"{row.agreement:.2f}")
