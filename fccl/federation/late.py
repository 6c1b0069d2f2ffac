"""Late answers: an update that comes after its round was closed counts in the next round of its phase.

Only under LATE_UPDATES=next, once, and only where its client has no answer in that next round. It is taken as a change:
θ_{R+1} + (u - θ_R), where θ_R is the adapter that round R began with. Its weight is multiplied by (1 + τ)^-1/2 at a
staleness of τ = 1 round, then all weights are divided by their sum (Nguyen et al. 2022, FedBuff).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import leading
from fccl.contribution.protocol import Weighing
from fccl.contribution.reported import proportional
from fccl.federation.carried import Carried
from fccl.messages import Answer, ClientFailure, ClientUpdate, FitTask
from fccl.records.late import LateUpdate

STALENESS = 1  # rounds; an answer that is older counts nowhere
DISCOUNT = 1 / math.sqrt(1 + STALENESS)


@dataclass(frozen=True, eq=False)
class Pending:
    """The clients whose answers were missing when a round was closed, and the adapter that the round began with."""

    adapter: Adapter
    clients: tuple[int, ...]

    def without(self, updates: Iterable[ClientUpdate], members: Collection[int] | None = None) -> tuple[int, ...]:
        """The clients that have none of these updates, and are still members where members may leave."""
        answered = {update.client_id for update in updates}
        here = self.clients if members is None else [client for client in self.clients if client in members]
        return tuple(client for client in here if client not in answered)


def moved(update: ClientUpdate, before: Adapter, now: Adapter) -> ClientUpdate:
    """A late update as it counts in a round that begins with `now`; `before` is what its client began with.

    Its round stays the one that it was trained for, and the norm of its change is the same.
    """
    return replace(update, adapter=Carried(update.adapter, before, now))


def is_late(update: ClientUpdate, task: FitTask) -> bool:
    """Whether the update was trained for the round before the task's."""
    return update.round != task.round


def late_updates(
    answers: Iterable[Answer], clients: Collection[int], tell: Callable[[str], None]
) -> list[ClientUpdate]:
    """Late answers that were judged: the first good one of each of the clients. `tell` hears a line for each."""
    found: dict[int, ClientUpdate] = {}
    for answer in answers:
        if isinstance(answer, ClientFailure):
            tell(f"client {answer.client_id}: its late answer is not taken: {answer.reason}")
        elif answer.client_id in clients and answer.client_id not in found:
            found[answer.client_id] = answer
            tell(sentence(answer))
    return list(found.values())


def as_counted(task: FitTask, updates: Iterable[ClientUpdate], pending: Pending | None) -> list[ClientUpdate]:
    """A round's updates as they count, from those that arrived: late ones moved from what their clients began with."""
    if pending is None:
        return list(updates)
    before = leading(pending.adapter, task.model.lora_r)
    return [moved(update, before, task.trained) if is_late(update, task) else update for update in updates]


def discounted(task: FitTask, updates: Sequence[ClientUpdate], weighing: Weighing) -> Weighing:
    """The weights with late updates' discount, of sum 1 again. Where nothing is late they stay to the bit."""
    return replace(weighing, weights=with_discount(weighing.weights, [is_late(update, task) for update in updates]))


def with_discount(weights: Sequence[float], late: Sequence[bool]) -> tuple[float, ...]:
    """The weights with the discount of those that are late, of sum 1 again."""
    if not any(late):
        return tuple(weights)
    pairs = zip(weights, late, strict=True)
    return proportional([weight * (DISCOUNT if each else 1.0) for weight, each in pairs])


def recorded(task: FitTask, arrived: Iterable[ClientUpdate]) -> tuple[LateUpdate, ...]:
    """The late ones of a round's updates, as its record has them."""
    return tuple(LateUpdate(client_id=each.client_id, round=each.round) for each in arrived if is_late(each, task))


def still_missing(failures: Iterable[ClientFailure], adapter: Adapter) -> Pending | None:
    """The clients of a round that may still answer it: those that neither have answered nor declined."""
    clients = tuple(failure.client_id for failure in failures if not failure.declines)
    return Pending(adapter, clients) if clients else None


def by_client(updates: Iterable[ClientUpdate], late: Iterable[ClientUpdate]) -> list[ClientUpdate]:
    """Both in client order."""
    return sorted([*updates, *late], key=lambda update: update.client_id)


def sentence(update: ClientUpdate) -> str:
    """One line on a late update that is taken."""
    late, next_round = update.round + 1, update.round + STALENESS + 1
    return f"client {update.client_id}: its answer to round {late} came late and counts in round {next_round}"
