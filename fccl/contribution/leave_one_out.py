"""The leave-one-out score, the loss of the mean without a client: score_i = L(mean of the others) - L(mean of all), in
nats.

Above 0 the others do worse without the client; below 0 they do better. w_i is proportional to p_i exp(score_i / (T
max_j |score_j|)), where p is the prior that also weighs the mean. A score of 0 is neutral: the client's prior is
neither raised nor lowered. A client that harms has less than its prior and more than nothing. Copies of one update
lessen each other's score: without one, the others are still there.

A client without which the loss overflows has the largest score of the round, at least 1 nat; one that alone makes it
overflow has minus that.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fccl.adapters.adapter import Adapter
from fccl.contribution.prior import Prior, prior_weights, shares, tilted
from fccl.contribution.protocol import LearnLoss, Weighing
from fccl.contribution.verified import finite, mean_of
from fccl.messages import ClientUpdate, FitTask
from fccl.records.run import Verification

ROUNDING = 1e-6  # of the loss: a loss in float32 is not known better, so smaller scores are none
OVERFLOW = 1.0  # nats: what is between a loss and one that overflows, unless another client's score is larger

_Sums = dict[str, Tensor]


@dataclass(frozen=True)
class LeaveOneOut:
    """Softmax of the scores over the largest of them, on top of `prior`."""

    loss: LearnLoss
    temperature: float = 0.5
    prior: Prior = "samples"

    def weigh(self, task: FitTask, updates: Sequence[ClientUpdate]) -> Weighing:
        """One forward pass a client and two more; every update is loaded log2(n) + 3 times."""
        started = time.monotonic()
        prior = prior_weights(self.prior, updates, shares(task, updates))
        loss = self.loss.loss(task, mean_of(updates, prior))
        without = [self.loss.loss(task, mean) for mean in means_without_one(task.trained, updates, prior)]
        scores = bounded([other - loss for other in without])
        largest = max(map(abs, scores))
        told = largest > (ROUNDING * abs(loss) if math.isfinite(loss) else 0.0)
        weights = tilted(prior, [score / largest for score in scores], self.temperature) if told else prior
        verification = Verification(
            examples=self.loss.examples(task.phase),
            prior=prior,
            loss_prior=finite(loss),
            loss_weights=finite(self.loss.loss(task, mean_of(updates, weights))),
            passes=len(updates) + 2,
            seconds=time.monotonic() - started,
        )
        return Weighing(weights, scores, verification, examples=self.loss.drawn(task))


def bounded(differences: Sequence[float]) -> tuple[float, ...]:
    """Differences of losses, all finite. Infinity becomes the largest of the others, at least `OVERFLOW`; NaN, the
    difference of two losses that overflow, becomes 0.
    """
    largest = max([OVERFLOW, *(abs(difference) for difference in differences if math.isfinite(difference))])
    return tuple(
        0.0 if math.isnan(difference) else max(-largest, min(largest, difference)) for difference in differences
    )


def means_without_one(start: Adapter, updates: Sequence[ClientUpdate], prior: Sequence[float]) -> Iterator[Adapter]:
    """For each update in turn the mean of all others; `start`, what clients were given to train, where there is no
    other.

    Computed by halving: the sum of everything outside a half is that half's start. So nothing is ever subtracted, which
    would be meaningless beside a huge update. Every update is loaded log2(n) times, and log2(n) sums are held.
    """

    def below(first: int, stop: int, outside: _Sums, weight: float) -> Iterator[Adapter]:
        if stop - first == 1:
            yield Adapter({name: (total / weight).float() for name, total in outside.items()}) if weight > 0 else start
            return
        middle = (first + stop) // 2
        for mine, other in (((first, middle), (middle, stop)), ((middle, stop), (first, middle))):
            yield from below(
                *mine,
                _with(outside, updates[slice(*other)], prior[slice(*other)]),
                weight + math.fsum(prior[slice(*other)]),
            )

    nothing = {name: torch.zeros(tensor.shape, dtype=torch.float64) for name, tensor in start.tensors.items()}
    return below(0, len(updates), nothing, 0.0)


def _with(sums: _Sums, updates: Sequence[ClientUpdate], weights: Sequence[float]) -> _Sums:
    """The sums with these updates added to them, as new tensors."""
    total = {name: tensor.clone() for name, tensor in sums.items()}
    for update, weight in zip(updates, weights, strict=True):
        if weight > 0:
            for name, tensor in update.adapter.load().tensors.items():
                total[name].add_(tensor.double(), alpha=weight)
    return total
