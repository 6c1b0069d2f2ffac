"""Verdicts over trials: means over seeds, paired differences to FedAvg, the share of a gap that is closed.

From three seeds on a difference has the interval of Student's t over the seeds' paired differences, and its verdict is
read off that. With one seed or two the verdict is the bootstrap's, which stands beside it in any case.

The bootstrap has two levels (Davison & Hinkley 1997, section 3.8): seeds are drawn with replacement, and within each
drawn seed its test examples. All methods of a scenario are judged on the same draws, so what makes a seed or an example
hard for all cancels out. With one seed the interval covers the test examples alone. It does not hold 95 % of other
draws of seeds: take S seeds, variance t between them and v of a seed's own mean. The figure varies by (t + v) / S, its
resamples by ((S - 1) / S (t + v) + v) / S. Where seeds agree, intervals are too wide (1.34 times with five). Where
seeds differ by more than their examples explain, intervals are too narrow (0.89 times with five, 0.71 times with two).
`docs/decisions/0013` says how often they are wrong. Shares of a gap have the bootstrap's interval: a ratio of two means
has no t of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fccl.compare.values import TrialResult
from fccl.evaluation.bootstrap import LEVEL, Bootstrap, Floats
from fccl.evaluation.student import FEWEST_SEEDS, student
from fccl.records.comparison import FEDAVG, LEAST_DIFFERENCE, ORACLE, POOLED, Standing
from fccl.records.evaluation import FEWEST_FOR_A_VERDICT, Estimate
from fccl.specs import named_seed


@dataclass(frozen=True, eq=False)
class Sampled:
    """One figure of one method: of each seed, (S,), and over each resample of seeds and examples, (B,)."""

    by_seed: Floats
    draws: Floats
    examples: int

    @property
    def value(self) -> float:
        """The mean over the seeds as they are."""
        return float(np.mean(self.by_seed))

    @property
    def estimate(self) -> Estimate:
        """With the bootstrap's interval."""
        low, high = np.quantile(self.draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(value=self.value, low=float(low), high=float(high), n=self.examples)

    @property
    def judged(self) -> Estimate:
        """With the interval that verdicts are read off: Student's t from three seeds on, else the bootstrap's."""
        if len(self.by_seed) < FEWEST_SEEDS:
            return self.estimate
        return student(self.by_seed.tolist()).model_copy(update={"n": self.examples})


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
        by_seed = np.array([over.sum() / under.sum() for over, under in pairs])
        ratios = np.empty((self.samples, len(pairs)))
        for pair, (here, counts) in zip(pairs, self._resamples, strict=True):
            over, under = (np.einsum("bn,n->b", counts, part) for part in pair)
            ratios[here] = over / np.maximum(under, np.finfo(float).tiny)
        return Sampled(by_seed, ratios.mean(axis=1), sum(self.counts))

    def ratio_of(self, trials: Sequence[TrialResult], over: str, under: str) -> Sampled | None:
        """`mean_ratio` of two fields of a method's trials. None where a trial lacks them."""
        if not self.counts or len(trials) != len(self.counts):
            return None
        return self.mean_ratio([getattr(one, over) for one in trials], [getattr(one, under) for one in trials])

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
        """The seeds that each resample is made of: (B, S)."""
        count = len(self.counts)
        return np.random.default_rng(named_seed(self.seed, "seeds")).integers(count, size=(self.samples, count))


@dataclass(frozen=True)
class Judgement:
    """The judgement of one method in one scenario."""

    loss: Estimate | None
    accuracy: Estimate | None
    difference: Estimate | None
    bootstrap: Estimate | None
    verdict: Standing | None
    gap_pooled: Estimate | None
    gap_closed: Estimate | None
    aside: Estimate | None


def judge(trials: Mapping[str, Sequence[TrialResult]], samples: int, seed: int) -> dict[str, Judgement]:
    """Every method of one scenario; each has one trial a seed, in the same order.

    Methods may be missing, and so may FedAvg, the oracle and the pooled data.
    """
    found = Judge(samples, seed, _counts(trials, "units"))
    losses = {name: found.ratio_of(many, "losses", "units") for name, many in trials.items()}
    accuracies = {name: found.ratio_of(many, "right", "decided") for name, many in trials.items()}
    beside = Judge(samples, seed, _counts(trials, "aside_units"))
    asides = {name: beside.ratio_of(many, "aside", "aside_units") for name, many in trials.items()}
    base, best, pooled = (losses.get(name) for name in (FEDAVG, ORACLE, POOLED))
    result = {}
    for name, mine in losses.items():
        change = minus(mine, base) if mine and base and name != FEDAVG else None
        is_base = name == FEDAVG or FEDAVG not in trials
        result[name] = Judgement(
            loss=mine.estimate if mine else None,
            accuracy=_estimate(accuracies[name]),
            difference=change.judged if change else None,
            bootstrap=change.estimate if change else None,
            verdict=None if is_base else _verdict(mine, base, change),
            gap_pooled=gap_closed(mine, base, pooled) if name != FEDAVG else None,
            gap_closed=gap_closed(mine, base, best) if name != FEDAVG else None,
            aside=_estimate(asides[name]),
        )
    return result


def minus(mine: Sampled, other: Sampled) -> Sampled:
    """A difference, seed by seed and draw by draw."""
    return Sampled(mine.by_seed - other.by_seed, mine.draws - other.draws, mine.examples)


def gap_closed(mine: Sampled | None, base: Sampled | None, best: Sampled | None) -> Estimate | None:
    """(base - mine) / (base - best): 1 is as good as the best, 0 as bad as the base. None unless the best is better
    than the base, significantly.

    Where the gap is nearly nothing its share is nearly anything, which is what the interval then says.
    """
    if mine is None or base is None or best is None:
        return None
    gap = minus(base, best)
    if gap.examples < FEWEST_FOR_A_VERDICT or gap.judged.low <= 0:
        return None
    closed = minus(base, mine)
    draws = closed.draws / np.where(gap.draws == 0, np.finfo(float).tiny, gap.draws)
    return Sampled(np.array([closed.value / gap.value]), draws, mine.examples).estimate


def standing(difference: Estimate) -> Standing:
    """The verdict on a difference of losses, from its interval and the least difference that counts.

    Better: lower, beyond the interval, and by a difference that counts. Worse: higher likewise. Not worse: the whole
    interval lies below a difference that counts. Otherwise the two cannot be told apart.

    >>> standing(Estimate(value=-0.1, low=-0.2, high=-0.01, n=100)), standing(Estimate(value=0, low=-1, high=1, n=100))
    ('better', 'cannot be told apart')
    """
    if difference.high < 0 and difference.value <= -LEAST_DIFFERENCE:
        return "better"
    if difference.low > 0 and difference.value >= LEAST_DIFFERENCE:
        return "worse"
    return "not worse" if difference.high < LEAST_DIFFERENCE else "cannot be told apart"


def _verdict(mine: Sampled | None, base: Sampled | None, change: Sampled | None) -> Standing:
    """A model that cannot be scored is worse than one that can."""
    if change is None:
        return "cannot be told apart" if mine is base else "worse" if mine is None else "better"
    return "too few examples" if change.examples < FEWEST_FOR_A_VERDICT else standing(change.judged)


def _counts(trials: Mapping[str, Sequence[TrialResult]], units: str) -> tuple[int, ...]:
    """Of each seed, how many examples a figure is over: those of the first method that has it in all seeds."""
    lengths = (tuple(len(getattr(one, units)) for one in many) for many in trials.values())
    return next((found for found in lengths if all(found)), ())


def _estimate(figure: Sampled | None) -> Estimate | None:
    return figure.estimate if figure else None
