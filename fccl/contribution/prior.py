"""Where the weights of a verified source start: what is believed of the clients before the server's examples speak."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median_low
from typing import Literal

from fccl.contribution.rules import proportional
from fccl.messages import ClientUpdate, FitTask

FAR = 5.0  # medians; honest clients whose samples differ twentyfold stay within three

Prior = Literal["samples", "uniform"]


def prior_weights(prior: Prior, task: FitTask, updates: Sequence[ClientUpdate]) -> tuple[float, ...]:
    """In proportion to samples (the mean is then FedAvg's), or all alike; an update that is far out has less. They sum to 1.

    Far out is farther from the round's adapter than `FAR` times the median of those that moved at all. It starts with so much less that it moves the
    mean no more than one at that limit would: where a single update has driven the mean to where the loss is flat or overflows, no
    gradient leads back. Every update is loaded once.
    """
    amounts = [float(update.contribution.num_samples) if prior == "samples" else 1.0 for update in updates]
    distances = [update.adapter.load().distance(task.trained) for update in updates]
    moved = [distance for distance in distances if distance > 0]
    limit = FAR * median_low(moved) if moved else math.inf
    return proportional([amount * (min(1.0, limit / far) if far > 0 else 1.0) for amount, far in zip(amounts, distances, strict=True)])


def tilted(prior: Sequence[float], scores: Sequence[float], temperature: float) -> tuple[float, ...]:
    """w_i = p_i exp(s_i / T) / sum_j p_j exp(s_j / T), the best score subtracted first."""
    best = max(scores)
    return proportional([start * math.exp((score - best) / temperature) for start, score in zip(prior, scores, strict=True)])
