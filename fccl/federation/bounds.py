"""Bounds on an update before any rule sees it: the size of its numbers, and how far it moved beside the others.

A rule is fair among updates of a kind. An absurd update drags a mean anywhere, decides the length of everybody's steps,
or overflows a product. Most of that can be seen in two numbers an update. They are measured when it is loaded for the
first time, and travel with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median, median_low

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import leading, rank_of
from fccl.errors import BadAggregate, UpdateRejected
from fccl.messages import ClientUpdate
from fccl.records.run import MedianNorms

# of a number: honest factors and gradients stay under a thousand, and products of two such still fit float32 with room
LARGEST = 1e6
FEWEST = 3  # updates that moved, of which one alone does not make the median
FAR = 5.0  # medians; honest clients whose samples differ twentyfold stay within three
TIMES_MEDIAN = 10  # of declared numbers of examples: so many times the median is the most that counts


@dataclass(frozen=True)
class Measured:
    """One kind of vector that clients send: what to call it, its norm in an update, and the median of the last accepted
    round.
    """

    name: str
    norm: Callable[[ClientUpdate], float | None]
    before: float | None


def require_usable(adapter: Adapter, what: str) -> None:
    """Raises `BadAggregate` when no client could start from a global adapter with such numbers."""
    if adapter.largest > LARGEST:
        raise BadAggregate(f"{what} has a number of size {adapter.largest:.3g}")


def measured(update: ClientUpdate, adapter: Adapter, start: Adapter) -> ClientUpdate:
    """The update with its norms; `adapter` is what it holds, `start` what its client was given to train.

    Raises `UpdateRejected` when a number in it is larger than `LARGEST`.
    """
    require_sizes(adapter, "its update")
    change = adapter.distance(leading(start, rank_of(adapter.form)))
    if update.control is None:
        return replace(update, change_norm=change)
    control = update.control.load()
    require_sizes(control, "its control variate")
    return replace(update, change_norm=change, control_norm=norm(control))


def require_sizes(adapter: Adapter, what: str) -> None:
    """Raises `UpdateRejected` when a number is larger than `LARGEST`, in either direction."""
    if adapter.largest > LARGEST:
        raise UpdateRejected(f"{what} has a number of size {adapter.largest:.3g}, more than {LARGEST:,.0f}")


def norm(adapter: Adapter) -> float:
    """L2, over all tensors, in float64."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in adapter.tensors.values()))


def too_long(updates: Sequence[ClientUpdate], ratio: float, before: MedianNorms) -> Mapping[int, str]:
    """By client, why its update is excluded: its change, or its control variate, is longer than `ratio` times the
    median of the round's.

    The median is of those that are not zero, so that clients who send back what they were given make nobody else long.
    Of fewer than `FEWEST` one client alone would make it: then it is the last accepted round's, and before the first
    such round there is no bound. A ratio of 0 asks for none.
    """
    reasons: dict[int, str] = {}
    for kind in _kinds(before) if ratio > 0 else ():
        norms = {update.client_id: found for update in updates if (found := kind.norm(update)) is not None}
        typical = _typical(list(norms.values()), kind.before)
        if typical is not None:
            reasons |= {
                client: _reason(kind.name, found, typical, ratio)
                for client, found in norms.items()
                if found > ratio * typical
            }
    return reasons


def medians(updates: Sequence[ClientUpdate], before: MedianNorms) -> MedianNorms:
    """The medians of the updates that a round accepted; the ones before, where nothing moved."""
    change, control = (
        _median([found for update in updates if (found := kind.norm(update))], kind.before) for kind in _kinds(before)
    )
    return MedianNorms(change=change, control=control)


def _kinds(before: MedianNorms) -> tuple[Measured, Measured]:
    return (
        Measured("its change", lambda update: update.change_norm, before.change),
        Measured("its control variate", lambda update: update.control_norm, before.control),
    )


def _typical(norms: Sequence[float], before: float | None) -> float | None:
    moved = [found for found in norms if found > 0]
    return median(moved) if len(moved) >= FEWEST else before


def _median(moved: Sequence[float], otherwise: float | None) -> float | None:
    return median(moved) if moved else otherwise


def _reason(what: str, found: float, typical: float, ratio: float) -> str:
    return (
        f"{what} has the norm {found:.3g}, {found / typical:,.0f} times the median of {typical:.3g}; "
        "MAX_UPDATE_RATIO "
        f"is {ratio:g}"
    )


def capped(declared: Mapping[int, int], most: int = 0) -> Mapping[int, int]:
    """Declared numbers of examples by client, none larger than `most`; 0 is `TIMES_MEDIAN` times their median.

    The median is of those that are not zero, of an even number the lower one. So as long as no more than half of the
    clients lie, nobody counts for more than `TIMES_MEDIAN` times the largest honest number.
    """
    numbers = [number for number in declared.values() if number > 0]
    limit = most or TIMES_MEDIAN * median_low(numbers or [0])
    return {client: min(number, limit) for client, number in declared.items()}


@dataclass(frozen=True)
class Farthest:
    """The update of a round that moved farthest.

    `alone`: so much farther than the others that they are not to blame for what it did.
    """

    client_id: int
    words: str
    alone: bool


def farthest(updates: Sequence[ClientUpdate]) -> Farthest | None:
    """None where nothing moved, or nothing was measured."""
    norms = {update.client_id: update.change_norm for update in updates if update.change_norm}
    if not norms:
        return None
    client_id = max(norms, key=lambda client: norms[client])
    others = [found for client, found in norms.items() if client != client_id]
    alone = bool(others) and norms[client_id] > FAR * median(others)
    beside = f", the median of the others {median(others):.3g}" if others else ""
    return Farthest(client_id, f"client {client_id}: norm {norms[client_id]:.3g}{beside}", alone)
