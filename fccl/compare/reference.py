"""Exact Shapley values of a round as the reference for its weights, and how far the reference itself can be trusted.

Values on a few dozen examples are noisy. Those of two halves of the examples show it: where the halves do not order the
clients alike, no weights can agree with the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from fccl.contribution.shapley import MOST_CLIENTS, exact_values, rank_correlation
from fccl.evaluation.validation import Validator, VerificationLoss
from fccl.messages import ClientUpdate, FitTask
from fccl.specs import Phase

Item = TypeVar("Item")


@dataclass(frozen=True)
class Agreement:
    """Rank correlations (Spearman): of the weights with the values, and of the values of two halves. None: no order."""

    weights: float | None = None
    halves: float | None = None


def agreement(
    learn: Validator, task: FitTask, updates: Sequence[ClientUpdate], counted: Sequence[float]
) -> Agreement | None:
    """The part of each update in the mean, held against its exact Shapley value on the whole split. None for more than
    `MOST_CLIENTS` updates.

    Values are linear in the loss, so the mean of the halves' values is the value on the whole split. It costs 2^n
    forward passes over the split.
    """
    if len(updates) > MOST_CLIENTS:
        return None
    halves = halved(learn)
    first, second = (exact_values(VerificationLoss(half, examples=0), task, updates) for half in halves)
    one, other = (units(half, task.phase) for half in halves)
    whole = [(one * a + other * b) / (one + other) for a, b in zip(first, second, strict=True)]
    return Agreement(rank_correlation(counted, whole), rank_correlation(first, second))


def halved(learn: Validator) -> tuple[Validator, Validator]:
    """Every second example of each kind in the order of topics, so that a topic of two examples is in both halves."""
    one, other = (_part(learn, start) for start in (0, 1))
    return one, other


def _part(learn: Validator, start: int) -> Validator:
    sft, va = every_second(learn.sft, start), every_second(learn.va, start)
    return Validator(learn.model, sft, va, preference=learn.preference, batch_size=learn.batch_size)


def every_second(examples: Sequence[Item], start: int) -> list[Item]:
    """In the order of their topics; examples of a topic stay in theirs."""
    return sorted(examples, key=lambda example: getattr(example, "topic", ""))[start::2]


def units(half: Validator, phase: Phase) -> int:
    """The number of what a mean loss is over: response tokens in SFT, pairs in VA."""
    if phase == "va":
        return len(half.va)
    return sum(row.response_length for row in half.rows)
