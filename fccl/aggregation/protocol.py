"""The protocol of aggregation rules: each is a frozen value that turns a round's updates into the next adapter.

A rule never looks at who sent an update or at what a client says of itself; that has become the weights
(`fccl.contribution`) before.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.source import AdapterSource
from fccl.aggregation.mean import weighted_mean
from fccl.aggregation.state import ServerState
from fccl.errors import FederationError
from fccl.specs import Value


@dataclass(frozen=True, eq=False)
class Parts:
    """A round's updates in client order, and how much each counts: weights >= 0 with sum 1, else `ValueError`.

    An update that is still in its file is read anew at every pass, so the memory does not grow with the number of
    clients.
    """

    weights: Sequence[float]
    updates: Sequence[AdapterSource]

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.updates):
            raise ValueError(f"{len(self.updates)} updates need as many weights, not {len(self.weights)}")
        if not (
            self.weights and min(self.weights) >= 0 and abs(math.fsum(self.weights) - 1) <= 1e-9
        ):  # written so that a NaN fails it
            raise ValueError(f"weights must be >= 0 with sum 1, not {self.weights}")

    def __len__(self) -> int:
        return len(self.updates)

    def __iter__(self) -> Iterator[tuple[float, Adapter]]:
        """Weight and adapter of every update, loaded one at a time."""
        return ((weight, update.load()) for weight, update in zip(self.weights, self.updates, strict=True))

    def require_form(self, form: Form) -> None:
        """Raises `AdapterError` unless all updates have these names and shapes. Reads no file."""
        for update in self.updates:
            form.require(update.form)

    def counted(self) -> Iterator[tuple[float, Adapter]]:
        """The same without the updates whose weight is zero: their files need not be read."""
        return (
            (weight, update.load()) for weight, update in zip(self.weights, self.updates, strict=True) if weight > 0
        )


@dataclass(frozen=True, eq=False)
class Aggregated:
    """The next adapter and the rule's state after it.

    `weights` says how much each update counted in the end, in client order. The weighted sum of the updates is the
    adapter, or the mean that a server optimiser stepped towards. Weights that sum to less than 1 leave the rest to the
    adapter before. None under a rule by coordinates, which takes parts of each update.
    """

    adapter: Adapter
    state: ServerState
    weights: tuple[float, ...] | None


class Aggregation(Protocol):
    """An aggregation rule."""

    @property
    def name(self) -> str:
        """As `AGGREGATION` spells it."""
        ...

    @property
    def uses_weights(self) -> bool:
        """False when it ignores the contribution weights and treats all updates alike."""
        ...

    def initial(self, adapter: Adapter) -> ServerState:
        """The state before the first round of a phase that starts from `adapter`."""
        ...

    def require(self, updates: int) -> None:
        """Raises `FederationError` when so many updates are too few for the rule, so that a run can say it before its
        first round.
        """
        ...

    def aggregate(self, before: Adapter, parts: Parts, state: ServerState) -> Aggregated:
        """The adapter that follows `before`. The same bytes for the same arguments, whatever number of threads torch
        has.

        Raises `AdapterError` when an update does not fit `before`, `FederationError` when there are too few updates for
        the rule, `BadAggregate` when the result is too large for float32.
        """
        ...


class Stateless(Value):
    """A rule that carries nothing from round to round."""

    name: str

    def initial(self, adapter: Adapter) -> ServerState:
        return ServerState()

    def require(self, updates: int) -> None:
        """Any number will do."""


class Reweighing(Stateless):
    """A weighted mean of the updates; the rule decides on the weights alone, so any mean can stand at its end
    (`fccl.aggregation.lora_mean`).
    """

    is_mean: ClassVar[bool] = True
    uses_weights: ClassVar[bool]

    @abstractmethod
    def weigh(self, before: Adapter, parts: Parts) -> tuple[float, ...]:
        """The weight of each update: >= 0 with sum 1. Raises as `aggregate` does."""

    def aggregate(self, before: Adapter, parts: Parts, state: ServerState) -> Aggregated:
        parts.require_form(before.form)
        weights = self.weigh(before, parts)
        return Aggregated(weighted_mean(Parts(weights, parts.updates).counted()), state, weights)


def is_mean(rule: Aggregation) -> bool:
    """Whether the rule's adapter stands for the weighted mean of the updates: then its LoRA error can be measured."""
    return bool(getattr(rule, "is_mean", False))


def require_updates(updates: int, needed: int, rule: str, setting: str) -> None:
    """Raises `FederationError` when a round has fewer updates than the rule needs; `setting` is the one that asks for
    so many.
    """
    if updates < needed:
        raise FederationError(
            f"AGGREGATION={rule} with {setting} needs at least {needed} updates a round, and there are {updates}",
            hint=f"lower {setting.partition('=')[0]}, let more clients take part, or use another AGGREGATION",
        )
