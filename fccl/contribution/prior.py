"""Where the weights of a verified source start: what is believed of the clients before the server's examples speak."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median_high
from typing import Literal

from fccl.contribution.reported import proportional
from fccl.messages import ClientUpdate, FitTask

FAR = 3.0  # medians

Prior = Literal["samples", "uniform"]


def shares(task: FitTask, updates: Sequence[ClientUpdate]) -> tuple[float, ...]:
    """The share of each change that is believed: 1, and for a change that is far out median / length.

    A change is far out when it is longer than `FAR` times the median of those that moved at all. It counts as one of
    the median's length, not of the limit's, so going too far gains nothing. No update that was measured is loaded.

    Of an even number the larger middle one is the median: fewer than half cannot move it. Honest clients with few
    examples then do not make those with many far out, unless they are more than half. Of two clients nobody is far out.
    """
    distances = [update.change_from(task.trained) for update in updates]
    moved = [distance for distance in distances if distance > 0]
    middle = median_high(moved) if moved else math.inf
    return tuple(middle / distance if distance > FAR * middle else 1.0 for distance in distances)


def prior_weights(prior: Prior, updates: Sequence[ClientUpdate], believed: Sequence[float]) -> tuple[float, ...]:
    """In proportion to samples (the mean is then FedAvg's), or all alike, times what is believed of each (`shares`).
    They sum to 1.

    So an update that is far out moves the mean no more than one of the median's length would. A single update could
    otherwise drive the mean to where the loss is flat or overflows, and no gradient leads back.
    """
    amounts = [float(update.contribution.num_samples) if prior == "samples" else 1.0 for update in updates]
    return proportional([amount * share for amount, share in zip(amounts, believed, strict=True)])


def tilted(prior: Sequence[float], scores: Sequence[float], temperature: float) -> tuple[float, ...]:
    """w_i = p_i exp(s_i / T) / sum_j p_j exp(s_j / T), the best score subtracted first."""
    best = max(scores)
    return proportional(
        [start * math.exp((score - best) / temperature) for start, score in zip(prior, scores, strict=True)]
    )
