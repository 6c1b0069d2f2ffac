"""Norm clipping: no update moves the adapter farther than a bound."""

from __future__ import annotations

import statistics
from typing import ClassVar, Literal

from pydantic import Field

from fccl.adapters.adapter import Adapter
from fccl.aggregation.protocol import Aggregated, Parts, Stateless
from fccl.aggregation.state import ServerState
from fccl.aggregation.vectors import delta_norms, flat, unflat


class NormClipping(Stateless):
    """x + sum_i w_i δ_i min(1, M / ‖δ_i‖), δ_i = u_i - x (Sun et al. 2019). M is `clip_norm`, or the median of the
    round's ‖δ_i‖.

    Bounds how much a bad update can do, not whether it does: its direction stays. With the median it withstands scaling
    by fewer than half.
    """

    name: Literal["norm_clipping"] = "norm_clipping"
    clip_norm: float = Field(default=0.0, ge=0)  # M; 0: the median norm of the round
    uses_weights: ClassVar[bool] = True

    def aggregate(self, before: Adapter, parts: Parts, state: ServerState) -> Aggregated:
        parts.require_form(before.form)
        norms = delta_norms(before, parts)
        bound = self.clip_norm or statistics.median(norms)
        weights = tuple(
            weight * (min(1.0, bound / norm) if norm > 0 else 1.0)
            for weight, norm in zip(parts.weights, norms, strict=True)
        )
        origin = flat(before).double()
        result = origin.clone()
        for weight, update in zip(weights, parts.updates, strict=True):
            result.add_(flat(update.load()).double().sub_(origin), alpha=weight)
        return Aggregated(unflat(result, before.form, self.name), state, weights)
