"""Verdicts over trials: means over seeds, paired differences to FedAvg, the share of the gap to the oracle that is
closed.

Intervals are 95 % percentiles of a two-level bootstrap (Davison & Hinkley 1997, section 3.8): seeds are drawn with
replacement, and within each drawn seed its test examples. All methods of a scenario are judged on the same draws, so
what makes a seed or an example hard for all cancels out. With one seed the interval covers the test examples alone.

They do not hold 95 % of other draws of seeds. Take S seeds, variance t between them and v of a seed's own mean. The
figure varies by (t + v) / S, its resamples by ((S - 1) / S (t + v) + v) / S. Where seeds agree, intervals are too wide
(1.34 times with five). Where seeds differ by more than their examples explain, intervals are too narrow (0.89 times
with five, 0.71 times with two). `docs/decisions/0013` says how often they are wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fccl.compare.values import TrialResult
from fccl.evaluation.bootstrap import LEVEL, Bootstrap, Floats
from fccl.records.evaluation import FEWEST_FOR_A_VERDICT, Estimate, Verdict
from fccl.specs import named_seed


@dataclass(frozen=True, eq=False)
class Sampled:
    """One figure of one method: its value over the seeds as they are, and over each resample of seeds and examples,
    (B,).
    """

    value: float
    draws: Floats
    examples: int

    @property
    def estimate(self) -> Estimate:
        low, high = np.quantile(self.draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(value=self.value, low=float(low), high=float(high), n=self.examples)


@dataclass(frozen=True, eq=False)
class Judge:
    """Draws seeds and examples once for all methods of a scenario. `counts` are the test examples of each seed.

    Each sum is computed by itself, without BLAS. So a figure's last bits depend neither on which others are asked for
    nor on the number of threads, and on a busy machine no thread waits for another.
    """

    samples: int
    seed: int
    counts: tuple[int, ...]

    def mean_ratio(
        self, numerators: Sequence[Sequence[float]], denominators: Sequence[Sequence[float]]
    ) -> Sampled | None:
        """The mean over seeds of sum(numerators) / sum(denominators), one sequence a seed.

        None when a seed has nothing to divide by.
        """
        pairs = [
            np.stack([np.asarray(over, float), np.asarray(under, float)])
            for over, under in zip(numerators, denominators, strict=True)
        ]
        if any(pair.shape[1] != count for pair, count in zip(pairs, self.counts, strict=True)) or not all(
            under.sum() > 0 for _, under in pairs
        ):
            return None
        value = float(np.mean([over.sum() / under.sum() for over, under in pairs]))
        ratios = np.empty((self.samples, len(pairs)))
        for pair, (here, counts) in zip(pairs, self._resamples, strict=True):
            over, under = (np.einsum("bn,n->b", counts, part) for part in pair)
            ratios[here] = over / np.maximum(under, np.finfo(float).tiny)
        return Sampled(value, ratios.mean(axis=1), sum(self.counts))

    @cached_property
    def _resamples(self) -> list[tuple[NDArray[np.bool_], Floats]]:
        """Of each seed: where it is drawn, (B, S), and how often each of its examples is drawn each time.

        The same for every figure.
        """
        chosen = self._seeds()
        result = []
        for index, count in enumerate(self.counts):
            here = chosen == index
            drawn = int(here.sum())
            counts = (
                Bootstrap(drawn, named_seed(self.seed, "examples", index)).counts(count)
                if drawn
                else np.zeros((0, count))
            )
            result.append((here, counts))
        return result

    def _seeds(self) -> NDArray[np.int64]:
        """Which seeds each resample is made of: (B, S)."""
        count = len(self.counts)
        return np.random.default_rng(named_seed(self.seed, "seeds")).integers(count, size=(self.samples, count))


@dataclass(frozen=True)
class Judgement:
    """The judgement of one method in one scenario."""

    loss: Estimate | None
    accuracy: Estimate | None
    difference: Estimate | None
    verdict: Verdict | None
    gap_closed: Estimate | None


def judge(
    trials: Mapping[str, Sequence[TrialResult]], samples: int, seed: int, fedavg: str, oracle: str
) -> dict[str, Judgement]:
    """Every method of one scenario; each has one trial a seed, in the same order.

    Methods may be missing, and so may FedAvg and the oracle.
    """
    counts = tuple(
        len(one.units) for one in next((found for found in trials.values() if all(each.units for each in found)), ())
    )
    court = Judge(samples, seed, counts)
    losses = {
        name: court.mean_ratio([c.losses for c in found], [c.units for c in found]) if counts else None
        for name, found in trials.items()
    }
    accuracies = {
        name: court.mean_ratio([c.right for c in found], [c.decided for c in found])
        for name, found in trials.items()
        if _has_pairs(found)
    }
    base, best = losses.get(fedavg), losses.get(oracle)
    result = {}
    for name in trials:
        mine, right = losses[name], accuracies.get(name)
        difference = minus(mine, base).estimate if mine and base and name != fedavg else None
        verdict = _verdict(name == fedavg or fedavg not in trials, mine, base, difference)
        gap = gap_closed(mine, base, best) if name != fedavg else None
        result[name] = Judgement(
            mine.estimate if mine else None, right.estimate if right else None, difference, verdict, gap
        )
    return result


def minus(mine: Sampled, other: Sampled) -> Sampled:
    """A difference, draw by draw."""
    return Sampled(mine.value - other.value, mine.draws - other.draws, mine.examples)


def gap_closed(mine: Sampled | None, base: Sampled | None, best: Sampled | None) -> Estimate | None:
    """(base - mine) / (base - best): 1 is as good as the best, 0 as bad as the base. None unless the best is better
    than the base, significantly.

    Where the gap is nearly nothing its share is nearly anything, which is what the interval then says.
    """
    if mine is None or base is None or best is None:
        return None
    gap = minus(base, best)
    if gap.examples < FEWEST_FOR_A_VERDICT or gap.estimate.low <= 0:
        return None
    closed = minus(base, mine)
    draws = closed.draws / np.where(gap.draws == 0, np.finfo(float).tiny, gap.draws)
    return Sampled(closed.value / gap.value, draws, mine.examples).estimate


def _verdict(is_base: bool, mine: Sampled | None, base: Sampled | None, difference: Estimate | None) -> Verdict | None:
    """A model that cannot be scored is worse than one that can."""
    if is_base:
        return None
    if difference is None:
        return "no significant difference" if mine is base else "worse" if mine is None else "better"
    if difference.n < FEWEST_FOR_A_VERDICT:
        return "too few examples"
    if difference.low <= 0 <= difference.high:
        return "no significant difference"
    return "better" if difference.high < 0 else "worse"


def _has_pairs(trials: Sequence[TrialResult]) -> bool:
    return all(trial.decided for trial in trials)
