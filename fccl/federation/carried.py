"""A kept update carried to another global adapter than the one that it was trained from: to + (update - start)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.ranks import leading, rank_of
from fccl.adapters.source import AdapterSource, MadeOnLoad
from fccl.aggregation.vectors import unflat
from fccl.messages import ClientUpdate


@dataclass(frozen=True, eq=False)
class Carried(MadeOnLoad):
    """The change of an update, made from another start. In float64, rounded to float32 once.

    Song, Tong & Wei 2019 rebuild a federation's models for other sets of clients from stored changes in this way
    ("Profit Allocation for Federated Learning"). It is a guess: the client would have trained another change there.
    """

    update: AdapterSource
    start: Adapter  # that it was trained from
    to: Adapter  # of the same form

    @property
    def form(self) -> Form:
        """Names and shapes."""
        return self.update.form

    def load(self) -> Adapter:
        """Raises as the update's own `load` does, and `BadAggregate` where float32 is too small."""
        update = self.update.load()
        rank = rank_of(update.form)
        start, to = leading(self.start, rank), leading(self.to, rank)
        update.require_same_form(start)
        moved = to.vector.double() + (update.vector.double() - start.vector.double())  # (d,)
        return unflat(moved, update.form, "a carried update")


def carried(updates: Sequence[ClientUpdate], start: Adapter, to: Adapter) -> list[ClientUpdate]:
    """The updates as they are where both starts have the same bytes, else their changes made from the other one."""
    if start.sha256 == to.sha256:
        return list(updates)
    return [replace(update, adapter=Carried(update.adapter, start, to), change_norm=None) for update in updates]
