"""Tuning: every value of a method's grid on seeds that no judgement uses, judged by the loss on the learn split.

The learn split is what a method may use, so a person could tune so as well. Validation and test split have no part in
it. A value is chosen for each phase, over all scenarios that are asked for: one knob has one value in a comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
    """One value of a method's knob in one phase: the mean loss on the learn split over scenarios and seeds, in nats.

    None where some trial ended without a model that has a loss.
    """

    phase: Phase
    name: str  # with the value, as --methods takes it
    loss: float | None
    best: bool = False  # of its method and phase

    @property
    def method(self) -> str:
        """The method without its value."""
        return self.name.partition(AT)[0]


def tried(found: Iterable[tuple[Trial, TrialResult]]) -> tuple[Tried, ...]:
    """The result of a tuning's trials, by phase and in the order in which the methods come, the best ones marked."""
    losses: dict[tuple[Phase, str], list[float | None]] = {}
    for trial, result in found:
        if AT in trial.method:
            losses.setdefault((trial.spec.phase, trial.method), []).append(result.learn_loss)
    made = [Tried(phase, name, _mean(each)) for (phase, name), each in losses.items()]
    best = {(one.phase, one.method): one.name for one in sorted(made, key=_worst_first)}
    marked = [Tried(one.phase, one.name, one.loss, best[one.phase, one.method] == one.name) for one in made]
    return tuple(sorted(marked, key=lambda one: PHASES.index(one.phase)))


def _mean(losses: Sequence[float | None]) -> float | None:
    known = [loss for loss in losses if loss is not None]
    return float(np.mean(known)) if len(known) == len(losses) else None


def _worst_first(one: Tried) -> float:
    return -np.inf if one.loss is None else -one.loss
