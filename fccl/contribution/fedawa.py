"""FedAWA (Shi et al. 2025): weights under which the clients' changes agree with their mean. It uses no server data.

τ_i = u_i - x is a client's vector, τ = sum_i λ_i τ_i, θ = x + τ, and λ = softmax(a):

    min over a of  sum_i λ_i ‖τ_i - τ‖ + 1 - cos(θ, x)

from a = log p (FedAvg's weights), by Adam at `rate`, `STEPS` steps a round. It is the paper's equation 3 with the
cosine as its distance d. The paper's code keeps the logits from round to round and takes one step in each; this rule
has no memory, and takes all `STEPS` in every round. Where x is 0 the second part is left out.

All of it needs only inner products: ⟨τ_i, τ_j⟩, ⟨x, τ_i⟩ and ‖x‖².
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fccl.aggregation.protocol import Parts
from fccl.aggregation.vectors import flat, gram, one_thread
from fccl.contribution.adam import Adam, Numbers, softmax, through_softmax
from fccl.contribution.combinations import in_client_order
from fccl.contribution.protocol import Weighing
from fccl.contribution.reported import proportional
from fccl.messages import ClientUpdate, FitTask

STEPS = 10  # few: the objective is least, 0, with all weight on one client
SMALL = 1e-12  # of a vector's squared length: what is shorter is the rounding of a difference


@dataclass(frozen=True)
class FedAwa:
    """Weights by agreement; `rate` is Adam's."""

    rate: float = 0.01

    @in_client_order
    def weigh(self, task: FitTask, updates: Sequence[ClientUpdate]) -> Weighing:
        """No pass over any example; every update is loaded a few times. Scores are what the logits moved by."""
        products = inner_products(task, updates)
        first = np.log(proportional([float(update.contribution.num_samples) for update in updates]))  # (n,)
        adam, logits = Adam(self.rate), first
        for _ in range(STEPS):
            logits = logits + adam.step(through_softmax(softmax(logits), products.gradient(softmax(logits))))
        return Weighing(proportional(softmax(logits).tolist()), tuple((logits - first).tolist()))


@dataclass(frozen=True, eq=False)
class Products:
    """`changes` ⟨τ_i, τ_j⟩: (n, n); `start` ⟨x, τ_i⟩: (n,); `length` ‖x‖²."""

    changes: Numbers
    start: Numbers
    length: float

    def objective(self, weights: Numbers) -> float:
        """sum_i λ_i ‖τ_i - τ‖ + 1 - cos(θ, x)."""
        return float(weights @ self._distances(weights)) + 1 - self._cosine(weights)

    def gradient(self, weights: Numbers) -> Numbers:
        """Of the objective with respect to the weights: (n,)."""
        distances = self._distances(weights)  # (n,): D_i = ‖τ_i - τ‖
        along = self.changes @ weights  # (n,): ⟨τ_j, τ⟩
        known = distances > 0
        pull = np.where(known, weights / np.where(known, distances, 1.0), 0.0)  # (n,): λ_i / D_i
        # dD_i/dλ_j = (⟨τ_j, τ⟩ - ⟨τ_i, τ_j⟩) / D_i
        spread = distances + pull.sum() * along - self.changes @ pull
        return np.asarray(spread - self._cosine_gradient(weights, along))

    def _distances(self, weights: Numbers) -> Numbers:
        along, own = self.changes @ weights, np.diag(self.changes)
        squares = own - 2 * along + weights @ along
        return np.sqrt(np.where(squares > SMALL * max(float(own.max()), 0.0), squares, 0.0))

    def _cosine(self, weights: Numbers) -> float:
        inner, square = self._whole(weights)
        return inner / math.sqrt(square * self.length) if self.length > 0 and square > 0 else 1.0

    def _cosine_gradient(self, weights: Numbers, along: Numbers) -> Numbers:
        inner, square = self._whole(weights)
        if not (self.length > 0 and square > 0):
            return np.zeros_like(weights)
        scale = math.sqrt(square * self.length)
        return np.asarray(self.start / scale - inner * (self.start + along) / (square * scale))

    def _whole(self, weights: Numbers) -> tuple[float, float]:
        """⟨θ, x⟩ and ‖θ‖²."""
        along = float(weights @ self.start)
        return self.length + along, self.length + 2 * along + float(weights @ self.changes @ weights)


@one_thread()
def inner_products(task: FitTask, updates: Sequence[ClientUpdate]) -> Products:
    """The inner products of a round, in float64."""
    parts = Parts((1 / len(updates),) * len(updates), [update.adapter for update in updates])
    start = flat(task.trained).double()  # (d,)
    along = [float(start @ flat(adapter).double().sub_(start)) for _, adapter in parts]
    return Products(gram(task.trained, parts).numpy(), np.array(along), float(start @ start))
