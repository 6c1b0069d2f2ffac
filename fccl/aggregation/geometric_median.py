"""The geometric median: the point with the least weighted sum of distances to the updates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fccl.adapters.adapter import Adapter
from fccl.aggregation.protocol import Parts, Reweighing
from fccl.aggregation.vectors import gram, one_thread, squared_distances

# of the paper: an update nearer than this counts as this far; relative to its ‖u_i - before‖ where that is above 1
SMOOTHING = 1e-6
MAX_STEPS = 1000
TOLERANCE = 1e-9  # of the harmonic mean distance


class GeometricMedian(Reweighing):
    """argmin_v sum_i w_i ‖v - u_i‖ by the smoothed Weiszfeld algorithm (RFA, Pillutla et al. 2022).

    Withstands bad updates that hold less than half of the weight.
    """

    name: Literal["geometric_median"] = "geometric_median"
    uses_weights: ClassVar[bool] = True

    def weigh(self, before: Adapter, parts: Parts) -> tuple[float, ...]:
        return geometric_median(gram(before, parts), parts.weights)


@one_thread()
def geometric_median(inner: Tensor, weights: Sequence[float]) -> tuple[float, ...]:
    """The weights s with v = sum_i s_i u_i, >= 0 with sum 1: s_i ← w_i / max(smoothing, ‖v - u_i‖), divided by their
    sum, until v stands still or `MAX_STEPS` are made.

    v never leaves the updates' hull, so all distances follow from the inner products (n, n), and the updates themselves
    are read once, however many steps it takes. The total distance is the least one to float64's last digits. Where the
    median nearly meets an update the steps are slow (Kuhn 1973), and it is within 2e-4 of the least.
    """
    total_distance = _TotalDistance(inner, torch.tensor(weights, dtype=torch.float64))
    shares = _divided(
        total_distance.prior / _median_distances(inner, total_distance.prior).maximum(total_distance.least)
    )
    for _ in range(MAX_STEPS):
        pulls = total_distance.pulls(shares)
        new = _divided(pulls)
        change, shares = new - shares, new
        if float(change @ inner @ change) <= (TOLERANCE / float(pulls.sum())) ** 2:
            break
    total = math.fsum(shares.tolist())
    return tuple(share / total for share in shares.tolist())


@dataclass(frozen=True, eq=False)
class _TotalDistance:
    """f(s) = sum_i w_i ‖v - u_i‖ at v = sum_i s_i u_i.

    ‖v - u_i‖² = s'Gs - 2 (Gs)_i + G_ii with G = `inner`.
    """

    inner: Tensor  # (n, n)
    prior: Tensor  # (n,): w

    @cached_property
    def least(self) -> Tensor:
        """Nearer than this counts as this: (n,)."""
        return SMOOTHING * self.inner.diagonal().sqrt().clamp(min=1)

    def distances(self, shares: Tensor) -> Tensor:
        """(n,)."""
        projected = self.inner @ shares
        return (shares @ projected - 2 * projected + self.inner.diagonal()).clamp(min=0).sqrt()

    def pulls(self, shares: Tensor) -> Tensor:
        """w_i / ‖v - u_i‖: (n,)."""
        return self.prior / self.distances(shares).maximum(self.least)


def _median_distances(inner: Tensor, weights: Tensor) -> Tensor:
    """The distance from each update within which half of the weight lies: (n,).

    A start in inverse proportion to this. From the plain mean it takes the more steps the farther away a bad update is;
    from here it does not.
    """
    ordered = squared_distances(inner).sort(dim=1)
    half = (weights[ordered.indices].cumsum(dim=1) < 0.5).sum(dim=1, keepdim=True).clamp(max=len(weights) - 1)
    return ordered.values.gather(1, half).squeeze(1).sqrt()


def _divided(amounts: Tensor) -> Tensor:
    return amounts / amounts.sum()
