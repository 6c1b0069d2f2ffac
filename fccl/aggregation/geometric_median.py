"""The geometric median: the point with the least weighted sum of distances to the updates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fccl.adapter import Adapter
from fccl.aggregation.protocol import Parts, Reweighing
from fccl.aggregation.vectors import gram, one_thread, squared_distances

SMOOTHING = 1e-6  # of the paper: an update nearer than this counts as this far; relative to its ‖u_i - before‖ where that is above 1
MAX_STEPS = 1000
TOLERANCE = 1e-9  # of the harmonic mean distance


class GeometricMedian(Reweighing):
    """argmin_v sum_i w_i ‖v - u_i‖ by the smoothed Weiszfeld algorithm (RFA, Pillutla et al. 2022).

    Withstands bad updates that hold less than half of the weight. Where the median nearly meets an update the steps become slow (Kuhn 1973), and the
    last of them is a point whose sum of distances is up to a ten-thousandth above the least.
    """

    name: Literal["geometric_median"] = "geometric_median"
    uses_weights: ClassVar[bool] = True

    def weigh(self, before: Adapter, parts: Parts) -> tuple[float, ...]:
        return weiszfeld(gram(before, parts), parts.weights)


@one_thread()
def weiszfeld(inner: Tensor, weights: Sequence[float]) -> tuple[float, ...]:
    """The weights s with v = sum_i s_i u_i, >= 0 with sum 1: s_i ← w_i / max(smoothing, ‖v - u_i‖), divided by their sum, until v stands still.

    v never leaves the updates' hull, so all distances follow from the inner products (n, n), ‖v - u_i‖² = s'Gs - 2 (Gs)_i + G_ii, and the updates
    themselves are read once, however many steps it takes.
    """
    prior = torch.tensor(weights, dtype=torch.float64)
    squares = inner.diagonal()
    least = SMOOTHING * squares.sqrt().clamp(min=1)
    shares = _divided(prior / _median_distances(inner, prior).maximum(least))
    for _ in range(MAX_STEPS):
        projected = inner @ shares
        distances = (shares @ projected - 2 * projected + squares).clamp(min=0).sqrt().maximum(least)
        new = _divided(prior / distances)
        change, shares = new - shares, new
        if float(change @ inner @ change) <= (TOLERANCE / float((prior / distances).sum())) ** 2:
            break
    total = math.fsum(shares.tolist())
    return tuple(share / total for share in shares.tolist())


def _median_distances(inner: Tensor, weights: Tensor) -> Tensor:
    """How far half of the weight is from each update: (n,).

    A start in inverse proportion to this. From the plain mean it takes the more steps the farther away a bad update is; from here it does not.
    """
    ordered = squared_distances(inner).sort(dim=1)
    half = (weights[ordered.indices].cumsum(dim=1) < 0.5).sum(dim=1, keepdim=True).clamp(max=len(weights) - 1)
    return ordered.values.gather(1, half).squeeze(1).sqrt()


def _divided(amounts: Tensor) -> Tensor:
    return amounts / amounts.sum()
