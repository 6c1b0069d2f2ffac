"""`fccl compare --tune`: the values of every knob beside each other, and the methods to compare next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console

from fccl.apps.terminal_tables import print_table
from fccl.compare.grids import GRIDS
from fccl.compare.trial import Trial
from fccl.compare.tuning import Tried, tried
from fccl.compare.values import TrialResult
from fccl.display.tables import Cell, Table
from fccl.display.words import DASH
from fccl.phases import of


def show(console: Console, found: Iterable[tuple[Trial, TrialResult]]) -> None:
    """A table for each phase, then the arguments of the comparison that judges the best."""
    rows = tried(found)
    for phase in dict.fromkeys(one.phase for one in rows):
        here = [one for one in rows if one.phase == phase]
        print_table(console, table(here))
        names = ",".join(one.name for one in here if one.best)
        console.print(f"To judge them: fccl compare --methods {names}", soft_wrap=True)


def table(rows: Sequence[Tried]) -> Table:
    """The tried values of one phase."""
    phase = of(rows[0].phase)
    cells = [(one.method, GRIDS[one.method].setting.upper(), one.name.rpartition("@")[2], *_both(one)) for one in rows]
    note = (
        f"Mean losses of the final adapters ({phase.unit}) over scenarios and seeds. The validation split judges, "
        "since some of the methods train on the learn split; the best of each stands out."
    )
    head = ("method", "knob", "value", "validation", "learn")
    return Table(f"Tuned: {phase.title}", head, tuple(cells), note, words=frozenset({1}))


def _both(one: Tried) -> tuple[Cell, Cell]:
    return _loss(one.loss, one.best), _loss(one.learn)


def _loss(loss: float | None, best: bool = False) -> Cell:
    return Cell(DASH if loss is None else f"{loss:.4f}", strong=best)
