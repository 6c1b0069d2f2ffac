"""Each client's own adapter on the server's examples: score_i = 1 / L(u_i), weighed as every other FCCL score.

It cannot be forged, but it judges a client alone, not what it adds to the others. A specialist whose skill nobody else
has scores low, since it does badly on everything else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from fccl.contribution.protocol import LearnLoss, Weighing
from fccl.contribution.reported import LOSS_FLOOR, Normalize, divided_by_mean, softmax
from fccl.messages import ClientUpdate, FitTask
from fccl.records.run import Verification


@dataclass(frozen=True)
class ValidationLoss:
    """Softmax of 1 / loss, divided by the mean over the round unless `normalize` is "none"."""

    loss: LearnLoss
    temperature: float = 1.0
    normalize: Normalize = "mean"

    def weigh(self, task: FitTask, updates: Sequence[ClientUpdate]) -> Weighing:
        """One forward pass a client. One whose loss is not finite is left out."""
        started = time.monotonic()
        losses = [self.loss.loss(task, update.adapter.load()) for update in updates]
        scores = tuple(1.0 / max(loss, LOSS_FLOOR) for loss in losses if math.isfinite(loss))
        unfit = tuple(index for index, loss in enumerate(losses) if not math.isfinite(loss))
        verification = Verification(
            examples=self.loss.examples(task.phase), passes=len(losses), seconds=time.monotonic() - started
        )
        weights = self._weights(scores) if scores else ()
        return Weighing(weights, scores, verification, unfit, self.loss.drawn(task))

    def _weights(self, scores: Sequence[float]) -> tuple[float, ...]:
        return softmax(divided_by_mean(scores) if self.normalize == "mean" else scores, self.temperature)
