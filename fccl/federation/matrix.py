"""Client by client: whose update lowers the loss on whose held-out examples, over a run's kept rounds.

For the update u_i of a round that began with x the entry is L_j(x) - L_j(u_i), in the phase's unit. Above 0, client i's
training helps on the examples that client j keeps apart. The mean is over the kept rounds in which i counted. Each u_i
stands alone, as if the round had aggregated nothing else, so nothing is carried and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from fccl.adapters.adapter import Adapter
from fccl.contribution.adam import Numbers
from fccl.federation.kept_rounds import KeptRound
from fccl.records.after import HelpsWhom
from fccl.records.run import ExampleLosses
from fccl.specs import Phase

LossesOf = Callable[[Adapter, Adapter | None], ExampleLosses]  # of an adapter under a reference, on all examples


def helps_whom(rounds: Iterable[KeptRound], phase: Phase, owners: Sequence[int], losses: LossesOf) -> HelpsWhom | None:
    """The matrix of one phase; `owners` has the client of each held-out example. None without rounds or examples."""
    falls: dict[int, list[Numbers]] = {}
    columns = sorted(set(owners))
    kept = [each for each in rounds if each.record.phase == phase]
    for each in kept if columns else ():
        before = by_owner(losses(each.adapter, each.reference), owners, columns)  # (clients with examples,)
        for update in each.updates():
            whole = update.with_frozen(each.adapter).adapter.load()
            found = before - by_owner(losses(whole, each.reference), owners, columns)
            falls.setdefault(update.client_id, []).append(found)
    if not falls:
        return None
    rows = {client: np.mean(found, axis=0) for client, found in sorted(falls.items())}
    return HelpsWhom(
        phase=phase,
        rounds=len(kept),
        updates=tuple(rows),
        owners=tuple(columns),
        examples=tuple(list(owners).count(client) for client in columns),
        falls=tuple(tuple(map(float, row)) for row in rows.values()),
    )


def by_owner(found: ExampleLosses, owners: Sequence[int], columns: Sequence[int]) -> Numbers:
    """The mean loss of each client's examples: their losses over their units. (clients,)"""
    totals: Mapping[int, tuple[float, float]] = {
        client: (
            sum(loss for loss, owner in zip(found.losses, owners, strict=True) if owner == client),
            sum(unit for unit, owner in zip(found.units, owners, strict=True) if owner == client),
        )
        for client in columns
    }
    return np.array([loss / units for loss, units in (totals[client] for client in columns)])
