"""FedLAW (Li et al. 2023, "Revisiting Weighted Aggregation in Federated Learning with Neural Networks"): weights, and
with `shrinks` a factor on the whole, learnt by gradient on the server's examples.

    min over a, b of L(x + gamma sum_i λ_i (u_i - x)),   λ = softmax(a),   gamma = exp(b)

from a = log p (FedAvg's weights p) and b = 0, by Adam with β = (0.5, 0.999) as in the paper's code; the last point is
taken. With d_i = <grad L, u_i - x>: dL/da_i = gamma λ_i (d_i - sum_j λ_j d_j), dL/db = gamma sum_j λ_j d_j.

The paper's gamma shrinks the whole parameter vector. Here the base is frozen and only the adapter is sent, so gamma is
a factor on the round's change. That is the paper's formula with x as the origin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fccl.contribution.adam import Adam, Numbers, softmax, through_softmax
from fccl.contribution.combinations import Combinations, in_client_order
from fccl.contribution.protocol import LearnLoss, Weighing
from fccl.contribution.reported import proportional
from fccl.messages import ClientUpdate, FitTask

BETA1 = 0.5  # of Adam, as in the paper's code
FAR = 20.0  # of b: e^20 times a change is beyond anything that trains


@dataclass(frozen=True)
class FedLaw:
    """`steps` steps of Adam at `rate`, each a forward and backward pass over all drawn examples."""

    loss: LearnLoss
    steps: int = 5
    rate: float = 0.3
    shrinks: bool = True

    @in_client_order
    def weigh(self, task: FitTask, updates: Sequence[ClientUpdate]) -> Weighing:
        """`steps` forward and backward passes and one forward pass. Ends early, at the last point whose loss and slopes
        are finite, where the next one's are not.
        """
        mix = Combinations(self.loss, task, updates)
        numbers = np.array([*np.log(mix.by_samples), 0.0])  # (n + 1,): the logits a, then b = log gamma
        adam, path, known = Adam(self.rate, BETA1), [], [numbers]
        for _ in range(self.steps):
            loss, slopes = mix.slopes(self._coefficients(known[-1]))
            path.append(loss)
            if not all(map(math.isfinite, (loss, *slopes))):
                break
            step = adam.step(self._gradient(known[-1], np.array(slopes)))
            known.append(np.clip(known[-1] + step, None, [math.inf] * len(updates) + [FAR]))
        else:
            path.append(mix.at(self._coefficients(known[-1])))
        taken = max((place for place, loss in enumerate(path) if math.isfinite(loss)), default=0)
        return self._weighing(mix, known[taken], known[0], path, taken)

    def _weighing(
        self, mix: Combinations, numbers: Numbers, first: Numbers, path: Sequence[float], taken: int
    ) -> Weighing:
        scores = (numbers - first)[:-1].tolist()
        stretch = (math.exp(numbers[-1]),) * len(scores) if self.shrinks else ()
        return mix.weighing(_weights(numbers), scores, stretch, path, taken)

    def _coefficients(self, numbers: Numbers) -> tuple[float, ...]:
        gamma = math.exp(numbers[-1]) if self.shrinks else 1.0
        return tuple(gamma * weight for weight in _weights(numbers))

    def _gradient(self, numbers: Numbers, slopes: Numbers) -> Numbers:
        """With respect to the logits and to log gamma: (n + 1,)."""
        gamma, weights = math.exp(numbers[-1]), softmax(numbers[:-1])
        of_gamma = gamma * float(weights @ slopes) if self.shrinks else 0.0
        return np.array([*(gamma * through_softmax(weights, slopes)), of_gamma])


def _weights(numbers: Numbers) -> tuple[float, ...]:
    """λ, with sum 1 to the last bit."""
    return proportional(softmax(numbers[:-1]).tolist())
