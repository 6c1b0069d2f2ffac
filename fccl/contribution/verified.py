"""Verified contribution: the loss on the server's own examples decides how much each client counts.

Exponentiated-gradient descent on the simplex of weights (Kivinen & Warmuth 1997). With u_i client i's update, theta(w) = sum_i w_i u_i, L the
held-out loss, p the prior and w = p at k = 0:

    d_i = <grad L(theta(w)), u_i>,   d_i <- d_i - sum_j w_j d_j,   log w_i <- log w_i - (1/T) d_i / (sqrt(k + 1) max_j |d_j|),   normalise

so after any step w_i is proportional to p_i exp(score_i / T), the score being what was subtracted in all. One backward pass gives every client's
marginal contribution d_i at once, however many clients there are. The path ends when little more is to be gained, and the weights of the lowest loss
on it are taken, so theta(w) is never worse on these examples than with the prior. `docs/contribution.md` says why, what it
costs, and where it fails.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fccl.adapter import Adapter
from fccl.aggregation.mean import weighted_mean
from fccl.contribution.prior import Prior, prior_weights, tilted
from fccl.contribution.weighing import HeldOutLoss, Weighing
from fccl.messages import ClientUpdate, FitTask
from fccl.records import Verification

ENOUGH = 0.1  # of the gap at the prior: where no more is left, the path ends
ROUNDING = 1e-9  # slopes that differ by less than this share of the largest are alike


@dataclass(frozen=True)
class _Point:
    """One iterate. `slopes` are centred: 0 on average under the weights; () where they are not finite or not asked for."""

    scores: tuple[float, ...]
    weights: tuple[float, ...]
    loss: float
    slopes: tuple[float, ...] = ()

    @property
    def gap(self) -> float:
        """By how much other weights could lower the loss at most, were it convex in them (Frank & Wolfe 1956); 0 without slopes."""
        return -min(self.slopes, default=0.0)


@dataclass(frozen=True)
class Verified:
    """Weights by exponentiated gradient: at most `steps` of strength 1 / `temperature`, from `prior`."""

    loss: HeldOutLoss
    steps: int = 5
    temperature: float = 0.5
    prior: Prior = "samples"

    def weigh(self, task: FitTask, updates: Sequence[ClientUpdate]) -> Weighing:
        """At most `steps` forward and backward passes and one forward pass over the examples; each step loads every update twice."""
        started = time.monotonic()
        path = list(self._path(task, updates))
        taken = min(range(len(path)), key=lambda step: path[step].loss)  # the first of equals
        verification = Verification(
            examples=self.loss.examples(task.phase),
            prior=path[0].weights,
            loss_prior=finite(path[0].loss),
            loss_weights=finite(path[taken].loss),
            slopes=path[0].slopes,
            path=tuple(finite(point.loss) for point in path),
            taken=taken,
            seconds=time.monotonic() - started,
        )
        return Weighing(path[taken].weights, path[taken].scores, verification)

    def _path(self, task: FitTask, updates: Sequence[ClientUpdate]) -> Iterator[_Point]:
        """The prior, then the iterates, as long as there is something to gain."""
        prior = prior_weights(self.prior, task, updates)
        point = self._point(task, updates, (0.0,) * len(updates), prior)
        yield point
        least = ENOUGH * point.gap
        for step in range(1, self.steps + 1):
            if point.gap <= least:
                return
            scale = math.sqrt(step) * max(map(abs, point.slopes))
            scores = tuple(score - slope / scale for score, slope in zip(point.scores, point.slopes, strict=True))
            weights = tilted(prior, scores, self.temperature)
            if step < self.steps:
                point = self._point(task, updates, scores, weights)
            else:
                point = _Point(scores, weights, self.loss.loss(task, mean_of(updates, weights)))
            yield point

    def _point(self, task: FitTask, updates: Sequence[ClientUpdate], scores: tuple[float, ...], weights: tuple[float, ...]) -> _Point:
        loss, slopes = self.loss.slopes(task, mean_of(updates, weights), (update.adapter.load() for update in updates))
        known = all(map(math.isfinite, (loss, *slopes)))
        return _Point(scores, weights, loss, centred(slopes, weights) if known else ())


def mean_of(updates: Sequence[ClientUpdate], weights: Sequence[float]) -> Adapter:
    """The mean that the federation would make of these weights, to the bit."""
    return weighted_mean((weight, update.adapter.load()) for weight, update in zip(weights, updates, strict=True))


def centred(slopes: Sequence[float], weights: Sequence[float]) -> tuple[float, ...]:
    """Slopes minus their weighted mean; all 0 when they differ by no more than rounding."""
    mean = math.fsum(weight * slope for weight, slope in zip(weights, slopes, strict=True))
    parts = tuple(slope - mean for slope in slopes)
    alike = max(map(abs, parts)) <= ROUNDING * max(map(abs, slopes))
    return (0.0,) * len(parts) if alike else parts


def finite(loss: float) -> float | None:
    """As records write it: no number where there is none."""
    return loss if math.isfinite(loss) else None
