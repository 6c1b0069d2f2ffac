"""The table of every client's own test, by phase: whom the federation has helped, and whom a personal adapter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fccl import phases
from fccl.display import words
from fccl.display.tables import Cell, Table
from fccl.paths import LogPaths
from fccl.records.journal import read_rounds
from fccl.records.run import OwnTestResult
from fccl.specs import Phase

MOST_ROWS = 400
OwnTestOf = tuple[Phase, OwnTestResult]
_NOTE = (
    "Mean loss on examples that the client keeps apart; lower is better. Alone: an adapter that the client trained by "
    "itself for as many rounds. Means as clients report them, without intervals: no other party has the examples."
)
_PERSONAL = "Personal: the client's own adapter, which never leaves it."
_AGAINST = ("global against alone", "personal against global", "personal against alone")


def own_tests_of(logs: LogPaths) -> list[OwnTestOf]:
    """The means that clients have reported of their own tests, by phase, in the order of the run."""
    return [(record.phase, each) for record in read_rounds(logs) for each in record.own_tests]


def own_tests_table(own_tests: Iterable[OwnTestOf]) -> Table | None:
    """A row for each client in each phase that has ended; None where no client keeps examples apart."""
    newest = {(phase, each.client_id): each for phase, each in own_tests}  # a phase may have been gone on with
    personal = any(each.personal is not None for each in newest.values())
    rows = [_row(phase, each, personal) for (phase, _), each in newest.items()][:MOST_ROWS]
    if not rows:
        return None
    losses = ("base", "alone", "global", *(("personal",) if personal else ()))
    head = ("client", "phase", "examples", *losses, *(_AGAINST if personal else _AGAINST[:1]))
    title = "Whom the federation helped" + (", and whom a personal adapter helps" if personal else "")
    verdicts = range(3 + len(losses), len(head))
    return Table(title, head, tuple(rows), _note(list(newest.values()), personal), words=frozenset({1, *verdicts}))


def _note(found: Sequence[OwnTestResult], personal: bool) -> str:
    helped = sum(each.together < each.alone for each in found)
    said = f"{_NOTE} The federation beats training alone in {helped} of {words.plural(len(found), 'row')}."
    if not personal:
        return said
    scored = [(each, each.personal) for each in found if each.personal is not None]
    best = sum(own < min(each.alone, each.together) for each, own in scored)
    return f"{said} {_PERSONAL} It beats both in {best} of {words.plural(len(scored), 'row')}."


def _row(phase: Phase, each: OwnTestResult, personal: bool) -> tuple[Cell | str, ...]:
    losses = [each.base, each.alone, each.together, *([each.personal] if personal else [])]
    best = min(loss for loss in losses if loss is not None)
    pairs = [(each.together, each.alone), (each.personal, each.together), (each.personal, each.alone)]
    return (
        str(each.client_id),
        phases.title(phase),
        f"{each.examples:,}",
        *(Cell(words.loss(loss), strong=loss == best) for loss in losses),
        *(_against(*pair) for pair in pairs[: 3 if personal else 1]),
    )


def _against(loss: float | None, other: float | None) -> Cell | str:
    if loss is None or other is None:
        return words.DASH
    difference = loss - other
    better = "better" if difference < 0 else "worse" if difference > 0 else "no difference"
    return Cell(f"{difference:+,.3f}".replace("-", words.MINUS), verdict=better)
