"""The table of whom the federation has helped: every client's own test, by phase."""

from __future__ import annotations

from fccl import phases, words
from fccl.records.run import OwnTestResult
from fccl.specs import Phase
from fccl.tables import Cell, Table
from fccl.view.values import RunView

MOST_ROWS = 400
_NOTE = (
    "Mean loss on examples that the client keeps apart; lower is better. Alone: an adapter that the client trained by "
    "itself for as many rounds. Means as clients report them, without intervals: no other party has the examples."
)


def own_tests_table(view: RunView) -> Table | None:
    """A row for each client in each phase that has ended; None where no client keeps examples apart."""
    newest = {(phase, each.client_id): each for phase, each in view.own_tests}  # a phase may have been gone on with
    rows = [_row(phase, each) for (phase, _), each in newest.items()][:MOST_ROWS]
    if not rows:
        return None
    helped = sum(each.together < each.alone for each in newest.values())
    note = f"{_NOTE} The federation beats training alone in {helped} of {len(newest)} rows."
    head = ("client", "phase", "examples", "base", "alone", "global", "global against alone")
    return Table("Whom the federation helped", head, tuple(rows), note, words=frozenset({1, 6}))


def _row(phase: Phase, each: OwnTestResult) -> tuple[Cell | str, ...]:
    difference = each.together - each.alone
    better = "better" if difference < 0 else "worse" if difference > 0 else "no difference"
    losses = {"base": each.base, "alone": each.alone, "together": each.together}
    best = min(losses.values())
    return (
        str(each.client_id),
        phases.title(phase),
        f"{each.examples:,}",
        *(Cell(words.loss(loss), strong=loss == best) for loss in losses.values()),
        Cell(f"{difference:+,.3f}".replace("-", words.MINUS), verdict=better),
    )
