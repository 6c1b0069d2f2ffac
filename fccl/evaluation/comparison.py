"""Paired differences of two models on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Literal

from numpy.typing import NDArray

from fccl.evaluation.bootstrap import Bootstrap, Floats
from fccl.evaluation.preference import choices, decided
from fccl.evaluation.suite import Evaluated
from fccl.records.evaluation import Difference, Estimate, ModelPair, verdict


def compare(first: Evaluated, second: Evaluated, boot: Bootstrap) -> ModelPair:
    """The differences of `second` to `first` on the split that both answered.

    Preferences count where neither has a tie.
    """
    differences = [
        perplexity_ratio(first.sft.nll, second.sft.nll, first.sft.tokens, boot),
        *_preferences("preference accuracy", first.pairs.margins, second.pairs.margins, boot),
        *_preferences(
            "preference accuracy, mean log-prob", first.pairs.margins_per_token, second.pairs.margins_per_token, boot
        ),
        difference("mean margin", "nats", boot.mean(second.pairs.margins - first.pairs.margins)),
    ]
    if len(first.exact):
        differences.append(difference("exact answers", "points", boot.mean(second.exact - first.exact)))
    return ModelPair(first=first.name, second=second.name, differences=tuple(differences))


def compare_all(models: Sequence[Evaluated], boot: Bootstrap) -> tuple[ModelPair, ...]:
    """Every two models: the later against the earlier, neighbours first."""
    couples = sorted(combinations(range(len(models)), 2), key=lambda couple: (couple[1] - couple[0], couple))
    return tuple(compare(models[first], models[second], boot) for first, second in couples)


def perplexity_ratio(first_nll: Floats, second_nll: Floats, tokens: NDArray[Any], boot: Bootstrap) -> Difference:
    """second / first: below 1 the second is better. A ratio, since perplexity is one: 40 to 20 is as much as 4 to 2."""
    estimate = boot.perplexity(second_nll - first_nll, tokens)
    return Difference(
        measure="response perplexity",
        kind="ratio",
        estimate=estimate,
        verdict=verdict(estimate, neutral=1.0, higher_is_better=False),
    )


def difference(measure: str, kind: Literal["points", "nats"], estimate: Estimate) -> Difference:
    """second - first, of a measure of which more is better."""
    return Difference(
        measure=measure, kind=kind, estimate=estimate, verdict=verdict(estimate, neutral=0.0, higher_is_better=True)
    )


def _preferences(measure: str, first: Floats, second: Floats, boot: Bootstrap) -> list[Difference]:
    change = decided(choices(second) - choices(first))
    return [difference(measure, "points", boot.mean(change))] if len(change) else []
