"""FCCL: from what clients contributed to how much they count.

w_i = exp(score_i / T) / sum_j exp(score_j / T), with the scores divided by their mean over the round first. Over raw
scores the formula has no useful temperature: samples 120, 50, 30 at T = 1 would give weights 1, 4e-31, 8e-40.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fccl.contribution.protocol import Weighing
from fccl.records.run import Contribution
from fccl.specs import Value

if TYPE_CHECKING:
    from fccl.messages import ClientUpdate, FitTask

LOSS_FLOOR = 1e-6  # nats; a smaller reported loss counts as this, so that 1/loss stays a number

Mode = Literal["cognitive", "uniform", "fedavg"]
Source = Literal["loss_inverse", "data_size", "data_loss_combined"]
Normalize = Literal["mean", "none"]  # scores over their mean in the round, or as they are


class ContributionRule(Value):
    """The rule over what clients report: a source of scores, and the way from scores to weights.

    `cognitive` is FCCL's softmax of the scores of `source`; `uniform` gives all the same; `fedavg` gives weights in
    proportion to samples (McMahan et al. 2017), as the limit of no softmax at all.
    """

    mode: Mode = "cognitive"
    source: Source = "data_size"
    temperature: float = Field(default=1.0, gt=0)
    normalize: Normalize = "mean"

    def scores(self, contributions: Sequence[Contribution]) -> tuple[float, ...]:
        """One raw score a client: 1/loss, samples, or samples/loss; under `uniform` 1, under `fedavg` samples."""
        if self.mode == "uniform":
            return (1.0,) * len(contributions)
        return tuple(
            _score("data_size" if self.mode == "fedavg" else self.source, contribution)
            for contribution in contributions
        )

    def weights(self, contributions: Sequence[Contribution]) -> tuple[float, ...]:
        """One weight a client, >= 0, with sum 1. Raises `ValueError` without clients."""
        if not contributions:
            raise ValueError("weights need at least one client")
        scores = self.scores(contributions)
        if self.mode != "cognitive":
            return proportional(scores)
        return softmax(divided_by_mean(scores) if self.normalize == "mean" else scores, self.temperature)

    def weigh(self, task: FitTask, updates: Sequence[ClientUpdate]) -> Weighing:
        """By what the clients report alone (`fccl.contribution.protocol.Weigher`)."""
        contributions = [update.contribution for update in updates]
        return Weighing(self.weights(contributions), self.scores(contributions))


def _score(source: Source, contribution: Contribution) -> float:
    loss = max(contribution.avg_loss, LOSS_FLOOR)
    if source == "loss_inverse":
        return 1.0 / loss
    return float(contribution.num_samples) if source == "data_size" else contribution.num_samples / loss


def softmax(scores: Sequence[float], temperature: float) -> tuple[float, ...]:
    """exp(s/T) / sum exp(s/T), the maximum subtracted first. T -> infinity is uniform, T -> 0 shares among the best."""
    best = max(scores)
    return proportional([math.exp((score - best) / temperature) for score in scores])


def divided_by_mean(scores: Sequence[float]) -> tuple[float, ...]:
    """Scores in units of their mean, so that the temperature is a pure number."""
    mean = math.fsum(scores) / len(scores)
    return tuple(score / mean for score in scores) if mean > 0 else tuple(scores)


def proportional(amounts: Sequence[float]) -> tuple[float, ...]:
    """Amounts >= 0 divided by their sum. The sum is exact (`fsum`), so the order of the clients does not matter."""
    total = math.fsum(amounts)
    return tuple(amount / total for amount in amounts)


def effective_clients(weights: Sequence[float]) -> float:
    """1 / sum w²: how many equally heard clients would be as spread as these weights (Kish 1965).

    Between 1 and their number.
    """
    return max(1.0, 1.0 / math.fsum(weight * weight for weight in weights))
