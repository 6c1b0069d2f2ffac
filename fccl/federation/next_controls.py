"""SCAFFOLD's control variates from one round to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fccl.adapters.source import AdapterSource
from fccl.aggregation.scaffold import ClientControl, Controls, controls_after
from fccl.messages import ClientUpdate

KeepControl = Callable[[ClientUpdate], AdapterSource | None]


def next_controls(
    before: Controls, updates: Sequence[ClientUpdate], weights: Sequence[float], clients: int, keep: KeepControl
) -> Controls:
    """The c_i after a round of these updates, in a federation of so many clients. `keep` puts the c_i of an update
    where it outlives the round, and returns it from there.
    """
    kept = {update.client_id: (weight, keep(update)) for update, weight in zip(updates, weights, strict=True)}
    sent = {
        client_id: ClientControl(weight, control)
        for client_id, (weight, control) in kept.items()
        if control is not None
    }
    return controls_after(before, sent, clients)
