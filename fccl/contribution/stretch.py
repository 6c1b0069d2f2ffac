"""Changes taken longer or shorter than they came, or the other way: x + s (u - x), for rules that do more than weigh.

A rule of weights stays among the means of the updates. FLTrust, FedLAW's gamma and LoraHub's search leave them: each
says a weight and a factor s for every update, and the aggregation sees the update that s makes of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.source import AdapterSource, MadeOnLoad
from fccl.aggregation.vectors import finite_adapter

if TYPE_CHECKING:
    from fccl.contribution.protocol import Weighing
    from fccl.messages import ClientUpdate, FitTask


@dataclass(frozen=True, eq=False)
class Stretched(MadeOnLoad):
    """start + factor (update - start), made at every load in float64 and rounded to float32 once."""

    update: AdapterSource
    start: Adapter
    factor: float

    @property
    def form(self) -> Form:
        """Names and shapes."""
        return self.update.form

    def load(self) -> Adapter:
        """Raises as the update's own `load` does, and `BadAggregate` where float32 is too small."""
        update = self.update.load()
        if self.factor == 1:
            return update
        tensors = {}
        for name, tensor in update.tensors.items():
            before = self.start.tensors[name].double()
            tensors[name] = (before + self.factor * (tensor.double() - before)).float()
        return finite_adapter(tensors, "the stretch of an update")


def as_weighed(task: FitTask, updates: Sequence[ClientUpdate], stretch: Sequence[float]) -> list[AdapterSource]:
    """The adapters that the aggregation is given: the updates' own, or what `stretch` makes of each.

    The one way from a round's answers and `RoundRecord.stretch` to what was aggregated, so a kept round can be made
    again. An empty `stretch` is a factor of 1 for all.
    """
    if not stretch:
        return [update.adapter for update in updates]
    start = task.trained
    return [
        Stretched(update.with_frozen(start).adapter, start, factor)
        for update, factor in zip(updates, stretch, strict=True)
    ]


def weights_and_stretch(coefficients: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Weights w >= 0 with sum 1 and factors s with w_i s_i = c_i, for any numbers c.

    w_i = |c_i| / sum_j |c_j|, and s_i = sign(c_i) sum_j |c_j|. Where all c are 0, so is every s, under equal weights.

    >>> weights_and_stretch((0.5, -1.5))
    ((0.25, 0.75), (2.0, -2.0))
    """
    total = math.fsum(map(abs, coefficients))
    if total == 0:
        return (1 / len(coefficients),) * len(coefficients), (0.0,) * len(coefficients)
    return tuple(abs(each) / total for each in coefficients), tuple(math.copysign(total, each) for each in coefficients)


def sent(weighing: Weighing) -> tuple[float, ...]:
    """w_i s_i: how much of each change is in the mean that the aggregation is asked for."""
    factors = weighing.stretch or (1.0,) * len(weighing.weights)
    return tuple(weight * factor for weight, factor in zip(weighing.weights, factors, strict=True))
