"""Measures of tasks that others have made: per-example figures of every model, through our paired bootstrap.

Where the figures come from is the harness's business (`fccl.evaluation.harness`); nothing here imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from fccl.evaluation.bootstrap import Bootstrap, Floats
from fccl.records.evaluation import Difference, Estimate, TaskResult, verdict

Kind = Literal["ratio", "points", "number"]


@dataclass(frozen=True, eq=False)
class TaskMeasure:
    """One measure of one model on a task's examples: `values` and `weights`, both (n,).

    The figure is Σ values / Σ weights; of a perplexity, whose values are nats, its exp.
    """

    task: str
    version: str
    shots: int
    measure: str
    higher_is_better: bool
    is_perplexity: bool
    values: Floats
    weights: Floats

    @property
    def kind(self) -> Kind:
        """The unit of a difference: a ratio of perplexities, points of a share, or a number in a unit of its own."""
        if self.is_perplexity:
            return "ratio"
        return "points" if bool(((self.values >= 0) & (self.values <= self.weights)).all()) else "number"


def task_result(models: Sequence[TaskMeasure], boot: Bootstrap) -> TaskResult:
    """One measure of all models, in order, and of every two of them, neighbours first.

    Raises `ValueError` unless all models have answered the same examples.
    """
    first = models[0]
    if any(len(each.values) != len(first.values) for each in models):
        raise ValueError(f"{first.task}: the models have not answered the same examples")
    couples = sorted(combinations(range(len(models)), 2), key=lambda couple: (couple[1] - couple[0], couple))
    return TaskResult(
        task=first.task,
        version=first.version,
        shots=first.shots,
        measure=first.measure,
        higher_is_better=first.higher_is_better,
        estimates=tuple(_estimate(each, boot) for each in models),
        differences=tuple(_difference(models[before], models[after], boot) for before, after in couples),
    )


def _estimate(one: TaskMeasure, boot: Bootstrap) -> Estimate:
    return boot.perplexity(one.values, one.weights) if one.is_perplexity else boot.ratio(one.values, one.weights)


def _difference(before: TaskMeasure, after: TaskMeasure, boot: Bootstrap) -> Difference:
    change = after.values - before.values  # of the same examples, whose weights are the task's
    estimate = boot.perplexity(change, before.weights) if before.is_perplexity else boot.ratio(change, before.weights)
    kinds = {before.kind, after.kind}
    return Difference(
        measure=before.measure,
        kind=before.kind if len(kinds) == 1 else "number",
        estimate=estimate,
        verdict=verdict(estimate, 1.0 if before.is_perplexity else 0.0, before.higher_is_better),
    )
