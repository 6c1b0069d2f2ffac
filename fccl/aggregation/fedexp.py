"""FedExP (Jhunjhunwala et al. 2023): the mean of the changes, taken farther the less they agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from fccl.adapters.adapter import Adapter
from fccl.aggregation.protocol import Aggregated, Parts, Stateless
from fccl.aggregation.state import ServerState
from fccl.aggregation.vectors import delta_norms, flat, mean_delta, one_thread, unflat


class FedExp(Stateless):
    """x' = x + η Δ, Δ = sum_i w_i δ_i, η = max(1, sum_i w_i ‖δ_i‖² / (2 (‖Δ‖² + ε))).

    With equal weights it is the paper's step. It is longer than FedAvg's where the changes' mean square length is more
    than twice that of their mean. The paper judges the mean of the last two iterates; here it is the last, as for every
    rule. It is no defence: opposed changes make the step long.
    """

    name: Literal["fedexp"] = "fedexp"
    fedexp_epsilon: float = Field(default=1e-3, gt=0)  # ε: bounds η where the changes cancel
    uses_weights: ClassVar[bool] = True

    def aggregate(self, before: Adapter, parts: Parts, state: ServerState) -> Aggregated:
        parts.require_form(before.form)
        delta = mean_delta(before, parts)
        step = self.step(parts.weights, delta_norms(before, parts), _square(delta))
        adapter = unflat(flat(before).double() + step * delta, before.form, self.name)
        return Aggregated(adapter, state, tuple(parts.weights))

    def step(self, weights: Sequence[float], norms: Sequence[float], square: float) -> float:
        """η, from the changes' norms ‖δ_i‖ and ‖Δ‖²."""
        spread = math.fsum(weight * norm**2 for weight, norm in zip(weights, norms, strict=True))
        return max(1.0, spread / (2 * (square + self.fedexp_epsilon)))


@one_thread()
def _square(vector: Tensor) -> float:
    return float(vector @ vector)
