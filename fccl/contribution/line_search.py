"""A line search over the server's step: FedAvg's direction, as long as the server's examples like it best.

x' = x + gamma sum_i p_i (u_i - x), with FedAvg's weights p and the gamma of `STEPS` that has the lowest loss. It says
how much of another rule's gain is no more than step length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fccl.contribution.combinations import Combinations, in_client_order
from fccl.contribution.protocol import LearnLoss, Weighing
from fccl.messages import ClientUpdate, FitTask

STEPS = (1.0, 0.125, 0.25, 0.5, 0.75, 1.25, 1.5, 2.0, 3.0, 4.0)  # 1 first: it wins where others are no better


@dataclass(frozen=True)
class LineSearch:
    """FedAvg's weights and one factor for all changes."""

    loss: LearnLoss

    @in_client_order
    def weigh(self, task: FitTask, updates: Sequence[ClientUpdate]) -> Weighing:
        """Ten forward passes. Scores are the samples; the step is 1 where no loss is finite."""
        mix = Combinations(self.loss, task, updates)
        weights = mix.by_samples
        path = [mix.at([step * weight for weight in weights]) for step in STEPS]
        taken = min(range(len(STEPS)), key=lambda place: path[place] if math.isfinite(path[place]) else math.inf)
        samples = [float(update.contribution.num_samples) for update in updates]
        return mix.weighing(weights, samples, (STEPS[taken],) * len(updates), path, taken)
