"""Exact Shapley values of a round's updates (Shapley 1953; in federated learning Wang et al. 2020), for few clients.

The value of a coalition S is v(S) = L(x) - L(θ_S): by how much it lowers the loss on the server's examples. θ_S is the
mean of its updates by their samples, and v of nobody is 0.

    φ_i = sum over S without i of |S|! (n - |S| - 1)! / n! · (v(S and i) - v(S))

They sum to v of all. This is the reference for every other score: `agreement` is the rank correlation of any weights
with it. As a rule it weighs w_i ∝ p_i exp(φ_i / (T max_j |φ_j|)), as `leave_one_out` does with its scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fccl.contribution.adam import Numbers
from fccl.contribution.combinations import Combinations, in_client_order
from fccl.contribution.leave_one_out import OVERFLOW
from fccl.contribution.prior import Prior, prior_weights, shares, tilted
from fccl.contribution.protocol import LearnLoss, Weighing
from fccl.contribution.reported import proportional
from fccl.errors import FederationError
from fccl.messages import ClientUpdate, FitTask

MOST_CLIENTS = 8  # 2^8 losses a round


@dataclass(frozen=True)
class Shapley:
    """Softmax of the exact values over the largest of them, on top of `prior`."""

    loss: LearnLoss
    temperature: float = 0.5
    prior: Prior = "samples"

    @in_client_order
    def weigh(self, task: FitTask, updates: Sequence[ClientUpdate]) -> Weighing:
        """2^n forward passes for n clients. Raises `FederationError` for more than `MOST_CLIENTS`."""
        mix = Combinations(self.loss, task, updates)
        losses = coalition_losses(mix)
        values = shapley_values([losses[0] - loss for loss in losses])
        prior = prior_weights(self.prior, updates, shares(task, updates))
        largest = max(map(abs, values))
        weights = tilted(prior, [value / largest for value in values], self.temperature) if largest > 0 else prior
        return mix.weighing(weights, values, path=[losses[-1], mix.at(weights)], taken=1)


def coalition_losses(mix: Combinations) -> tuple[float, ...]:
    """L(θ_S) of every S, finite: 2^n losses; bit i of a place says whether client i is in S, and place 0 is x itself.

    A loss that is not finite counts as 1 nat more than the largest that is. Raises `FederationError` for more than
    `MOST_CLIENTS` updates.
    """
    count = len(mix.updates)
    if count > MOST_CLIENTS:
        raise FederationError(
            f"exact Shapley values of {count} clients need {2**count:,} losses a round; at most {MOST_CLIENTS} clients",
            hint="use CONTRIBUTION_SOURCE=leave_one_out, or CLIENTS_PER_ROUND=8",
            resumable=False,
        )
    losses = [mix.at(_members_mean(mix.by_samples, place)) for place in range(2**count)]
    largest = max((loss for loss in losses if math.isfinite(loss)), default=0.0) + OVERFLOW
    return tuple(loss if math.isfinite(loss) else largest for loss in losses)


def _members_mean(weights: Sequence[float], place: int) -> tuple[float, ...]:
    """The weights of a coalition's members, with sum 1; all 0 for nobody."""
    held = [weight if place >> client & 1 else 0.0 for client, weight in enumerate(weights)]
    return proportional(held) if place else tuple(held)


def shapley_values(values: Sequence[float]) -> tuple[float, ...]:
    """φ of every player of the game with these 2^n values; bit i of a place says whether player i is in the coalition.

    >>> shapley_values([0.0, 1.0, 2.0, 4.0])
    (1.5, 2.5)
    """
    count = len(values).bit_length() - 1
    share = [math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count) for size in range(count)]
    return tuple(
        math.fsum(
            share[place.bit_count()] * (values[place | 1 << player] - values[place])
            for place in range(2**count)
            if not place >> player & 1
        )
        for player in range(count)
    )


def agreement(
    loss: LearnLoss, task: FitTask, updates: Sequence[ClientUpdate], weights: Sequence[float]
) -> float | None:
    """The rank correlation of a round's weights, or of any scores, with the exact Shapley values of its updates.

    `weights` are in the order of `updates`. None for more than `MOST_CLIENTS` updates, and where there is no order.
    It costs 2^n forward passes over the examples that `loss` draws for the task.
    """
    if len(updates) > MOST_CLIENTS:
        return None
    return rank_correlation(weights, exact_values(loss, task, updates))


def exact_values(loss: LearnLoss, task: FitTask, updates: Sequence[ClientUpdate]) -> tuple[float, ...]:
    """φ of every update, in nats, in their order. It costs 2^n forward passes.

    Raises `FederationError` for more than `MOST_CLIENTS` updates.
    """
    losses = coalition_losses(Combinations(loss, task, updates))
    return shapley_values([losses[0] - each for each in losses])


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rho: the correlation of the ranks, equal values sharing theirs. None where either has no two values.

    >>> rank_correlation((1.0, 2.0, 3.0), (10.0, 30.0, 20.0))
    0.5
    """
    left, right = (_ranks(np.asarray(values, dtype=np.float64)) for values in (one, other))
    left, right = left - left.mean(), right - right.mean()
    scale = math.sqrt(float(left @ left) * float(right @ right))
    return float(left @ right) / scale if scale > 0 else None


def _ranks(values: Numbers) -> Numbers:
    """The mean of the places that a value has among the sorted: (n,)."""
    below = (values[None, :] < values[:, None]).sum(axis=1)
    alike = (values[None, :] == values[:, None]).sum(axis=1)
    return np.asarray(below + (alike - 1) / 2, dtype=np.float64)
