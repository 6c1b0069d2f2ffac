"""Verified contribution: the loss on the server's own examples decides how much each client counts.

Exponentiated-gradient descent on the simplex of weights (Kivinen & Warmuth 1997), from the prior w = p at k = 0. x is
the round's adapter, u_i client i's update, b_i the share of its change that is believed
(`fccl.contribution.prior.shares`). theta(w) is sum_i w_i u_i, and L the loss on the examples that weights may use:

    d_i = b_i <grad L(theta(w)), u_i - x>,   d_i <- d_i - sum_j w_j d_j,   s = min(max_j |d_j|, 3 sum_j p_j |d_j|)
    log w_i <- log w_i - (1/T) clip(d_i / s, -1, 1) / sqrt(k + 1),   normalise

After any step w_i is proportional to p_i exp(score_i / T), where the score is the sum of what was subtracted. One
backward pass gives every client's marginal contribution d_i at once, however many clients there are. The path ends when
little more is to be gained. The weights of its lowest loss are taken, so theta(w) is never worse on these examples than
with the prior.

What one client alone can choose must not be another's gain. A change that is too long counts as one of the median's
length, in the prior and in every slope. The unit s of a step is at most three times the mean slope, in which a client
has its prior's share. And p is the prior of `fccl.contribution.prior`, tilted once by the slopes at x itself, where
each slope depends on one update alone. A client that leads uphill from x begins with less, and others who pull the mean
too far cannot make it look useful from the start. `docs/contribution.md` says why, what it costs, and where it fails.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from fccl.adapters.adapter import Adapter
from fccl.aggregation.mean import weighted_mean
from fccl.contribution.prior import Prior, prior_weights, shares, tilted
from fccl.contribution.protocol import LearnLoss, Weighing
from fccl.messages import ClientUpdate, FitTask
from fccl.records.run import Verification

ENOUGH = 0.1  # of the gap at the prior: where no more is left, the path ends
UPHILL = 6.0  # of a score: at the default temperature e^-12 of the prior
MOST = 3.0  # mean slopes that one step's unit may be; honest clients' largest stays within it
ROUNDING = 1e-9  # slopes that differ by less than this share of the largest are alike


@dataclass(frozen=True)
class _Point:
    """One iterate.

    `slopes` are centred: 0 on average under the weights; () where they are not finite or not asked for.
    """

    scores: tuple[float, ...]
    weights: tuple[float, ...]
    loss: float
    slopes: tuple[float, ...] = ()

    @property
    def gap(self) -> float:
        """By how much other weights could lower the loss at most, were it convex in them (Frank & Wolfe 1956); 0
        without slopes.
        """
        return -min(self.slopes, default=0.0)


@dataclass(frozen=True)
class Verified:
    """Weights by exponentiated gradient: at most `steps` of strength 1 / `temperature`, from `prior`."""

    loss: LearnLoss
    steps: int = 5
    temperature: float = 0.5
    prior: Prior = "samples"

    def weigh(self, task: FitTask, updates: Sequence[ClientUpdate]) -> Weighing:
        """At most `steps` + 1 forward and backward passes and one forward pass over the examples; each step loads every
        update twice.
        """
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
            passes=1 + len(path),  # the first for the slopes at the round's adapter
            seconds=time.monotonic() - started,
        )
        return Weighing(path[taken].weights, path[taken].scores, verification, examples=self.loss.drawn(task))

    def _path(self, task: FitTask, updates: Sequence[ClientUpdate]) -> Iterator[_Point]:
        """The prior, then the iterates, as long as there is something to gain."""
        believed = shares(task, updates)
        prior = self._prior(task, updates, believed)
        point = self._point(task, updates, believed, (0.0,) * len(updates), prior)
        yield point
        least = ENOUGH * point.gap
        for step in range(1, self.steps + 1):
            if point.gap <= least:
                return
            moves = clipped(point.slopes, unit(point.slopes, prior))
            scores = tuple(score - move / math.sqrt(step) for score, move in zip(point.scores, moves, strict=True))
            weights = tilted(prior, scores, self.temperature)
            if step < self.steps:
                point = self._point(task, updates, believed, scores, weights)
            else:
                point = _Point(scores, weights, self.loss.loss(task, mean_of(updates, weights)))
            yield point

    def _prior(self, task: FitTask, updates: Sequence[ClientUpdate], believed: Sequence[float]) -> tuple[float, ...]:
        """The prior, with less for who leads uphill from the round's adapter: by `UPHILL` where as steep as the median
        (under the weights).
        """
        before = prior_weights(self.prior, updates, believed)
        loss, slopes = self._slopes(task, updates, believed, task.trained)
        middle = weighted_median([abs(slope) for slope in slopes], before)
        if not all(map(math.isfinite, (loss, *slopes))) or middle == 0:
            return before
        uphill = [-UPHILL * max(0.0, min(1.0, slope / middle)) for slope in slopes]
        return tilted(before, uphill, self.temperature) if min(uphill) < max(uphill) else before

    def _point(
        self,
        task: FitTask,
        updates: Sequence[ClientUpdate],
        believed: Sequence[float],
        scores: tuple[float, ...],
        weights: tuple[float, ...],
    ) -> _Point:
        loss, slopes = self._slopes(task, updates, believed, mean_of(updates, weights))
        known = all(map(math.isfinite, (loss, *slopes)))
        return _Point(scores, weights, loss, centred(slopes, weights) if known else ())

    def _slopes(
        self, task: FitTask, updates: Sequence[ClientUpdate], believed: Sequence[float], where: Adapter
    ) -> tuple[float, tuple[float, ...]]:
        """The loss there, and how fast it rises along what is believed of each change."""
        directions = chain([task.trained], (update.adapter.load() for update in updates))
        loss, (start, *ends) = self.loss.slopes(task, where, directions)
        return loss, tuple(share * (end - start) for share, end in zip(believed, ends, strict=True))


def mean_of(updates: Sequence[ClientUpdate], weights: Sequence[float]) -> Adapter:
    """The mean that the federation would make of these weights, to the bit."""
    return weighted_mean((weight, update.adapter.load()) for weight, update in zip(weights, updates, strict=True))


def centred(slopes: Sequence[float], weights: Sequence[float]) -> tuple[float, ...]:
    """Slopes minus their weighted mean; all 0 when they differ by no more than rounding."""
    mean = math.fsum(weight * slope for weight, slope in zip(weights, slopes, strict=True))
    parts = tuple(slope - mean for slope in slopes)
    alike = max(map(abs, parts)) <= ROUNDING * max(map(abs, slopes))
    return (0.0,) * len(parts) if alike else parts


def unit(slopes: Sequence[float], prior: Sequence[float]) -> float:
    """The unit of slopes: the largest, or `MOST` times their mean under the prior where that is less. Above 0 unless
    all are 0.

    A client with little weight has a steep slope at will, and with the largest alone could make all others' steps as
    short as it likes.
    """
    sizes = [abs(slope) for slope in slopes]
    mean = math.fsum(weight * size for weight, size in zip(prior, sizes, strict=True))
    return min(max(sizes), MOST * mean) or max(sizes)


def weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
    """The least of the values below or at which half of the weight lies."""
    below = 0.0
    for value, weight in sorted(zip(values, weights, strict=True)):
        below += weight
        if below >= 0.5 * (1 - ROUNDING):
            return value
    return max(values)


def clipped(slopes: Sequence[float], by: float) -> list[float]:
    """The slopes in units of `by`, none beyond 1."""
    return [max(-1.0, min(1.0, slope / by)) for slope in slopes]


def finite(loss: float) -> float | None:
    """As records write it: no number where there is none."""
    return loss if math.isfinite(loss) else None
