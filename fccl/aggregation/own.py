"""An aggregation rule that somebody else wrote: what it returns is checked, what it raises is one line."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fccl.adapters.adapter import Adapter
from fccl.aggregation.protocol import Aggregated, Aggregation, Parts, is_mean
from fccl.aggregation.state import ServerState
from fccl.errors import FcclError, FederationError
from fccl.registry import said

MEND = "fccl.testing.aggregation.AggregationContract tests a class without a run"
Result = TypeVar("Result")


@dataclass(frozen=True)
class OwnAggregation:
    """`rule`, found under `name`. Raises `FederationError` where it breaks the contract of `Aggregation`."""

    name: str  # as `AGGREGATION` spells it: package.module:Class
    rule: Aggregation

    @property
    def uses_weights(self) -> bool:
        """As its class says; true where it says nothing."""
        return bool(getattr(self.rule, "uses_weights", True))

    @property
    def is_mean(self) -> bool:
        """As its class says; false where it says nothing."""
        return is_mean(self.rule)

    def initial(self, adapter: Adapter) -> ServerState:
        """As the rule does."""
        return self._checked(lambda: self.rule.initial(adapter), ServerState)

    def require(self, updates: int) -> None:
        """As the rule does."""
        self._checked(lambda: self.rule.require(updates), type(None))

    def aggregate(self, before: Adapter, parts: Parts, state: ServerState) -> Aggregated:
        """As the rule does; the adapter has the form of the one before."""
        result = self._checked(lambda: self.rule.aggregate(before, parts, state), Aggregated)
        if broken := self._broken(result, before, len(parts)):
            raise FederationError(f"{self.name}: {broken}", MEND, False)
        return result

    def _broken(self, result: Aggregated, before: Adapter, updates: int) -> str:
        """In what way this is nothing to go on with; empty when it is."""
        if not isinstance(result.adapter, Adapter) or not isinstance(result.state, ServerState):
            return "its adapter is no Adapter, or its state no ServerState"
        if result.adapter.form != before.form:
            return "its adapter has another form than the one before"
        try:
            return "" if result.weights is None else self._broken_weights(result.weights, updates)
        except (TypeError, ValueError, OverflowError, RuntimeError):  # the last is torch's, of more than one number
            return "its weights are not a tuple of numbers"

    def _broken_weights(self, weights: Sequence[float], updates: int) -> str:
        """The reason why the updates cannot have counted so much; empty when they can."""
        if len(weights) != updates:
            return f"{len(weights)} weights for {updates} updates"
        if not (min(weights) >= 0 and (total := math.fsum(weights)) <= 1 + 1e-9):  # written so that a NaN fails it
            return "its weights are not >= 0 with a sum of at most 1"
        if self.is_mean and total < 1 - 1e-9:
            return f"it is a mean, and its weights sum to {total:.6g}"
        return ""

    def _checked(self, call: Callable[[], Result], kind: type[Result]) -> Result:
        try:
            result = call()
        except FcclError:
            raise
        except (Exception, SystemExit) as error:
            raise FederationError(f"{self.name} raised {said(error)}", hint=MEND, resumable=False) from error
        if not isinstance(result, kind):
            raise FederationError(f"{self.name} returned {type(result).__name__}, not {kind.__name__}", MEND, False)
        return result
