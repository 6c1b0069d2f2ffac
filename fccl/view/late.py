"""The table of late updates: for which round each was trained, in which it counted, and for how much."""

from __future__ import annotations

from fccl import phases
from fccl.display.tables import Table
from fccl.view.values import RunView

MOST_ROWS = 400
_NOTE = (
    "An answer that came after its round was closed is taken in the next one as a change, with 71 % of its weight "
    "(LATE_UPDATES=next). Such a run depends on when answers came: another run of these settings has other bytes."
)


def late_table(view: RunView) -> Table | None:
    """A row for each late update, the newest first; None where there are none."""
    if not view.late:
        return None
    columns = (view.shares[name].tolist() for name in ("round", "client", "weight"))
    weights = {(number, client): weight for number, client, weight in zip(*columns, strict=True)}
    rows = []
    for number, phase, each in view.late[: -MOST_ROWS - 1 : -1]:
        weight = weights.get((number, each.client_id))
        counted = "excluded" if weight is None else f"{weight:.3f}"
        rows.append((str(each.client_id), phases.title(phase), str(each.round + 1), str(number + 1), counted))
    more = f" The newest {MOST_ROWS} of {len(view.late):,}." if len(view.late) > MOST_ROWS else ""
    head = ("client", "phase", "trained for round", "counted in round", "weight")
    return Table("Late updates", head, tuple(rows), _NOTE + more, words=frozenset({1}))
