"""Tuning: every value of a method's grid on seeds that no judgement uses, judged by the loss on the validation split.

A method that trains on the learn split looks the better there the harder it trains, so the learn split judges nobody;
its loss is told beside. The test split has no part in it. A value is chosen for each phase, over all scenarios that are
asked for: one knob has one value in a phase of a comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fccl.compare.grids import AT, GRIDS, with_value
from fccl.compare.methods import Method
from fccl.compare.trial import Trial
from fccl.compare.values import TrialResult
from fccl.specs import PHASES, Phase


def expanded(methods: Iterable[Method]) -> tuple[Method, ...]:
    """Each method that has a knob, at every value of its grid."""
    return tuple(
        with_value(method, value) for method in methods if method.name in GRIDS for value in GRIDS[method.name].values
    )


@dataclass(frozen=True)
class Tried:
    """One value of a method's knob in one phase: mean losses of the final adapters over scenarios and seeds, in nats.

    None where some trial ended without a model that has a loss.
    """

    phase: Phase
    name: str  # with the value, as --methods takes it
    loss: float | None  # on the validation split
    learn: float | None  # on the learn split
    best: bool = False  # of its method and phase

    @property
    def method(self) -> str:
        """The method without its value."""
        return self.name.partition(AT)[0]


def tried(found: Iterable[tuple[Trial, TrialResult]]) -> tuple[Tried, ...]:
    """The result of a tuning's trials, by phase and in the order in which the methods come, the best ones marked."""
    ends: dict[tuple[Phase, str], list[TrialResult]] = {}
    for trial, result in found:
        if AT in trial.method:
            ends.setdefault((trial.spec.phase, trial.method), []).append(result)
    made = [Tried(phase, name, *_losses(each)) for (phase, name), each in ends.items()]
    best = {(one.phase, one.method): one.name for one in sorted(made, key=_worst_first)}
    marked = [replace(one, best=best[one.phase, one.method] == one.name) for one in made]
    return tuple(sorted(marked, key=lambda one: PHASES.index(one.phase)))


def _losses(ends: Sequence[TrialResult]) -> tuple[float | None, float | None]:
    """Means on the validation and on the learn split."""
    if any(end.learn_loss is None for end in ends):
        return None, None
    last, learn = [end.rounds[-1].loss for end in ends], [end.learn_loss for end in ends if end.learn_loss is not None]
    return float(np.mean(last)), float(np.mean(learn))


def _worst_first(one: Tried) -> float:
    return -np.inf if one.loss is None else -one.loss
