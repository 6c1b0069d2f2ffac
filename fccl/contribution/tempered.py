"""Tempered weights: the server's examples move weights as far as they can tell clients apart, and set the step's
length.

x is the round's adapter, and δ_i = b_i (u_i - x) the believed part of client i's change
(`fccl.contribution.prior.shares`). p are FedAvg's weights. L is the loss on the server's examples, known on k groups of
them that share no topic. The next adapter:

    x + gamma sum_i w_i δ_i,   w_i ∝ p_i κ_i exp(a_i),   |a_i| ≤ 1/2 log R

Three things are kept apart. Each moves as far as it can be told from noise, which is that between the groups.

κ, who is left out. κ_i falls from 1 to 0 as the slope <grad L, δ_i> rises above its own noise, at x and then at the
mean. And who has led uphill for sure at x stays out until its rounds no longer say so (`fccl.contribution.standing`).
Late in a run slopes are small beside their noise, and no single round would tell. All others keep their prior.

a, how much more one counts than another. It goes down the centred slopes at the mean, of all the phase's rounds so far,
as far as the share of their spread that is signal (James & Stein 1961). No two clients of equal prior get farther apart
than a factor R. So n such clients are at least 4R / (1 + R)² n effective ones (Kantorovich's inequality). Where the
examples tell nothing the weights are the prior.

gamma, how far. Secant steps to where L is flat along the mean change, each moved towards 1 by the share of the slope
along it that is noise.

The point with the lowest loss on the way is taken. With fewer than `FEWEST_GROUPS` groups the start is all there is:
FedAvg's mean of those who are not out. `docs/contribution.md` derives all this.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fccl.contribution.adam import Numbers
from fccl.contribution.combinations import Combinations, in_client_order
from fccl.contribution.noise import FEWEST_GROUPS, Estimated, kept, signal
from fccl.contribution.prior import shares
from fccl.contribution.protocol import LearnLoss, Memory, Weigher, Weighing
from fccl.contribution.reported import proportional
from fccl.contribution.standing import FADES, MOST, Guilt, faded
from fccl.contribution.verified import unit
from fccl.messages import ClientUpdate, FitTask

AT_START = (0.0, 2.0)  # standard errors uphill at x between which κ falls: each slope there is its client's own doing
AT_MEAN = (2.0, 4.0)  # and at the mean, where it is everybody's
CHANGE = 1.6  # factor by which one step may change gamma
LONGEST = 3.0  # gamma
SETTLED = 0.01  # gamma that would move by less than this is where it should be
LOWEST = -12.0  # of a score: a client that is left out has no weight, and a score all the same


@dataclass(frozen=True, eq=False)
class Point:
    """Weights w (n,) and gamma; on each group of the examples L, (k,), and its slopes along the changes, (k, n)."""

    weights: Numbers
    gamma: float
    losses: Numbers
    slopes: Numbers

    @property
    def told(self) -> bool:
        """Whether all of it is known, and how noisy it is."""
        known = np.isfinite(self.losses).all() and np.isfinite(self.slopes).all()
        return bool(known) and len(self.losses) >= FEWEST_GROUPS

    @property
    def ratios(self) -> Numbers:
        """Student's t of each slope, (n,): > 0 leads uphill. All 0 where that is not told."""
        return Estimated.of(self.slopes).ratio if self.told else np.zeros(self.slopes.shape[1])

    @property
    def loss(self) -> float:
        """L; infinity where it is not finite."""
        value = float(self.losses.mean())
        return value if math.isfinite(value) else math.inf

    @property
    def along(self) -> float:
        """dL/dgamma."""
        return float(self.slopes.mean(axis=0) @ self.weights)

    @property
    def told_along(self) -> float:
        """The share of dL/dgamma that is not noise, from 0 to 1."""
        return Estimated.of((self.slopes @ self.weights)[:, None]).signal(np.ones(1))

    @property
    def centred(self) -> Numbers:
        """The slopes minus their weighted mean, in units of the noise that they have under the weights: (n,).

        Above 0 L rises as a client's weight grows at the cost of all. All 0 where that is not told.
        """
        centred = self.slopes - (self.slopes @ self.weights)[:, None]
        return Estimated.of(centred).in_noise(self.weights) if self.told else np.zeros(self.slopes.shape[1])


@dataclass(frozen=True)
class Tempered:
    """At most `steps` steps of gamma; `ratio` is R, how many times as much as another a client of equal prior counts.
    `memory` has four numbers of each client, from the phase's rounds before. They are S of its guilt at x, S of its
    centred slopes at the mean, F, and 1 if it is out.
    """

    loss: LearnLoss
    steps: int = 5
    ratio: float = 7.0
    memory: Memory = field(default_factory=dict)

    def remembering(self, memory: Memory) -> Weigher:
        """The rule with what it knows of clients from the rounds before."""
        return replace(self, memory=memory)

    @in_client_order
    def weigh(self, task: FitTask, updates: Sequence[ClientUpdate]) -> Weighing:
        """At most `steps` + 1 forward and backward passes and one forward pass over the examples, however many clients
        there are. Scores are log (w_i / p_i).
        """
        mix, believed = Combinations(self.loss, task, updates), np.array(shares(task, updates))
        prior, clients = np.array(mix.by_samples), [update.client_id for update in updates]
        slopes = _Slopes(mix, believed)
        origin, known = slopes.at(prior, 0.0), _Known.of(self.memory, clients)
        guilt = known.guilt.after(above_least(origin.ratios)) if origin.told else known.guilt
        base = without(left_out(prior, origin.ratios, AT_START), guilt.out)
        first = slopes.at(base, 1.0)
        at_mean = faded(known.at_mean, first.centred) if origin.told else known.at_mean
        path = [first, *self._path(slopes, origin, first, at_mean / np.maximum(guilt.rounds, 1.0))]
        losses = [point.loss for point in path]
        taken = min(range(len(path)), key=losses.__getitem__)  # the first of equals
        point = path[taken]
        weights = proportional(point.weights.tolist())
        stretch = () if point.gamma == 1 and believed.min() == 1 else tuple((point.gamma * believed).tolist())
        scores = scores_of(point.weights, prior)
        said = tuple(guilt.mean.tolist()) if guilt.rounds.any() else ()
        found = mix.weighing(weights, scores, stretch, losses, taken, standing=said)
        return replace(found, memory={**self.memory, **_Known(guilt, at_mean).of_each(clients)})

    def _path(self, slopes: _Slopes, origin: Point, first: Point, standing: Numbers) -> Iterator[Point]:
        """The steps from the first mean on, as long as all is finite and the noise can be told, until gamma settles."""
        base = left_out(first.weights, first.ratios, AT_MEAN)
        weights = normalised(base * np.exp(self.tilt(standing, first)))
        before, point, told = origin, first, first.told_along
        for step in range(1, self.steps + 1):
            if not (before.told and point.told):
                return
            gamma = 1 + told * (next_gamma(before.gamma, before.along, point.gamma, point.along) - 1)
            if step > 1 and abs(gamma - point.gamma) < SETTLED:
                return
            before = point
            point = slopes.at(weights, gamma) if step < self.steps else slopes.losses_at(weights, gamma)
            yield point

    def tilt(self, standing: Numbers, first: Point) -> Numbers:
        """a: (n,), within its bounds. `standing` is that of the centred slopes at the first mean."""
        apart = standing - standing @ first.weights
        size = unit(apart.tolist(), first.weights.tolist())
        if size == 0:
            return np.zeros(len(apart))
        told = signal(apart, first.weights, len(first.losses))
        return -told * 0.5 * math.log(self.ratio) * np.clip(apart / size, -1, 1)


@dataclass(frozen=True, eq=False)
class _Known:
    """The memory as arrays over a round's clients: the guilt of their slopes at x, and S of the centred ones at the
    mean.
    """

    guilt: Guilt
    at_mean: Numbers

    @classmethod
    def of(cls, memory: Memory, clients: Sequence[int]) -> _Known:
        """The standing of these clients; unknown where the memory is no such one."""
        kept = [memory.get(client, ()) for client in clients]
        totals, at_mean, rounds, out = np.array([one if _is_own(one) else (0.0,) * 4 for one in kept]).T
        return cls(Guilt(totals, rounds, out > 0), at_mean)

    def of_each(self, clients: Sequence[int]) -> Memory:
        """The memory of these clients; of those that no round has told of, nothing."""
        columns = np.stack([self.guilt.totals, self.at_mean, self.guilt.rounds, self.guilt.out])  # (4, n)
        rows = zip(clients, columns.T.tolist(), strict=True)
        return {client: tuple(numbers) for client, numbers in rows if numbers[2] > 0}


def _is_own(numbers: Sequence[float]) -> bool:
    """Whether these may be what `_Known` writes of a client, and no other rule's."""
    if len(numbers) != 4:
        return False
    guilt, at_mean, rounds, out = numbers
    most = 1 / (1 - FADES)
    return 0 <= guilt <= MOST * most and abs(at_mean) <= MOST * most and 1 <= rounds <= most and out in (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class _Slopes:
    """The loss over x + gamma sum_i w_i b_i (u_i - x)."""

    mix: Combinations
    believed: Numbers  # b, (n,)

    def at(self, weights: Numbers, gamma: float) -> Point:
        """A forward and a backward pass."""
        losses, slopes = self.mix.by_group((gamma * weights * self.believed).tolist())
        return Point(weights, gamma, losses, slopes * self.believed)

    def losses_at(self, weights: Numbers, gamma: float) -> Point:
        """A forward pass; the slopes are not asked for, and said to be 0."""
        losses, _ = self.mix.by_group((gamma * weights * self.believed).tolist(), slopes=False)
        return Point(weights, gamma, losses, np.zeros((len(losses), len(weights))))


def left_out(prior: Numbers, ratios: Numbers, limits: tuple[float, float]) -> Numbers:
    """p_i κ_i, normalised; p where nobody would stay.

    Where all lead uphill nobody does more harm for that: the least steep stays.
    """
    stays = prior * kept(above_least(ratios), *limits)
    return normalised(stays) if stays.sum() > 0 else prior


def above_least(ratios: Numbers) -> Numbers:
    """t less the smallest where all are above 0: (n,)."""
    return np.asarray(ratios - max(0.0, float(ratios.min())))


def without(prior: Numbers, out: NDArray[np.bool_]) -> Numbers:
    """The weights of those that are not out, normalised; all where nobody else has any."""
    stays = np.where(out, 0.0, prior)
    return normalised(stays) if stays.sum() > 0 else prior


def next_gamma(before: float, slope_before: float, now: float, slope: float) -> float:
    """A secant step to where dL/dgamma is 0, by a factor of at most `CHANGE` and never beyond `LONGEST`.

    Where the slope does not grow with gamma there is no minimum to aim at; the step is then as long as it may be.

    >>> next_gamma(0.0, -2.0, 1.0, -0.5)
    1.3333333333333333
    """
    curvature = (slope - slope_before) / (now - before) if now != before else 0.0
    downhill = CHANGE if slope < 0 else 1 / CHANGE if slope > 0 else 1.0
    aim = now - slope / curvature if curvature > 0 else now * downhill
    return min(max(aim, now / CHANGE), now * CHANGE, LONGEST)


def scores_of(weights: Numbers, prior: Numbers) -> tuple[float, ...]:
    """log (w_i / p_i): how far a client was raised or lowered, none lower than `LOWEST`."""
    with np.errstate(divide="ignore"):
        return tuple(np.maximum(np.log(weights / prior), LOWEST).tolist())


def normalised(amounts: Numbers) -> Numbers:
    """Amounts >= 0 over their sum: (n,)."""
    return np.asarray(amounts / math.fsum(amounts))
