"""Tables on the weights of a comparison: effective clients, and agreement with exact Shapley values."""

from __future__ import annotations

from collections.abc import Callable

from fccl.display.tables import Cell, Table
from fccl.display.words import DASH
from fccl.records.comparison import STABLE, Comparison, Outcome, ScenarioInfo

NOTE = (
    "Spearman's rank correlation of how much each change counted with its exact Shapley value on the server's learn "
    "split, mean over rounds and seeds: 1 is the same order, 0 none, -1 the opposite."
)
STABLE_NOTE = (
    f"The same over the rounds alone in which the values on two halves of the split correlate by at least {STABLE:g}, "
    "and how many rounds these are. Where the halves disagree no weights can agree with both."
)
EFFECTIVE_NOTE = (
    "1 / (sum of squared weights) in the scenarios without bad clients: the lowest of all rounds and seeds. Equal "
    "weights of n clients are n effective ones."
)
Figure = Callable[[Outcome], str]


def agreement_tables(comparison: Comparison) -> list[Table]:
    """Agreement over all rounds, and over those in which it can be told; none where nobody asked for it."""
    asked = [
        scenario
        for scenario in comparison.scenarios
        if any(row.scenario == scenario.name and row.agreement is not None for row in comparison.rows)
    ]
    title = "Agreement with exact Shapley values"
    found = (
        _table(comparison, asked, title, NOTE, _agreement),
        _table(comparison, asked, f"{title}, where these can be told", STABLE_NOTE, _stable),
    )
    return [table for table in found if table.rows]


def effective_tables(comparison: Comparison) -> list[Table]:
    """Effective clients of every method that has weights, in the scenarios without bad clients."""
    clean = [scenario for scenario in comparison.scenarios if not scenario.bad_clients]
    table = _table(comparison, clean, f"Effective clients of {comparison.num_clients}", EFFECTIVE_NOTE, _effective)
    return [table] if table.rows else []


def _table(comparison: Comparison, scenarios: list[ScenarioInfo], title: str, note: str, figure: Figure) -> Table:
    """Methods by scenarios, of the methods that have the figure in one of them."""
    texts = {
        method.title: [_text(comparison.row(scenario.name, method.name), figure) for scenario in scenarios]
        for method in comparison.methods
    }
    rows = tuple((Cell(name), *map(Cell, cells)) for name, cells in texts.items() if set(cells) - {DASH})
    return Table(title, ("method", *(scenario.title for scenario in scenarios)), rows, note)


def _text(row: Outcome | None, figure: Figure) -> str:
    return figure(row) if row else DASH


def _agreement(row: Outcome) -> str:
    return DASH if row.agreement is None else f"{row.agreement:.2f}"


def _stable(row: Outcome) -> str:
    stable, rounds = row.stable_rounds
    return DASH if row.agreement_stable is None else f"{row.agreement_stable:.2f} ({stable} of {rounds})"


def _effective(row: Outcome) -> str:
    return f"{min(row.effective):.1f}" if row.effective else DASH
