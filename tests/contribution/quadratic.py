"""A loss with a formula: L(theta) = 1/2 (theta - t)' H (theta - t), over adapters of a few numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from fccl.adapters.adapter import Adapter
from fccl.messages import ClientUpdate, FitTask
from fccl.records.run import Contribution, TrainingReport
from fccl.testing.toy import MODEL, TRAIN, adapter


def flat(adapter: Adapter) -> np.ndarray:
    return np.concatenate([tensor.double().numpy().ravel() for tensor in adapter.tensors.values()])


@dataclass
class Quadratic:
    """`LearnLoss` with target `t` and a diagonal H. Above `limit` the loss overflows.

    `asked` counts the calls by name.
    """

    target: tuple[float, ...] = (0.0, 0.0, 0.0)
    curvature: tuple[float, ...] = (1.0, 1.0, 1.0)
    limit: float = math.inf
    asked: list[str] = field(default_factory=list)

    def examples(self, phase):
        return 1

    def drawn(self, task):
        return (0,)

    def loss(self, task, adapter):
        self.asked.append("loss")
        return self._loss(adapter)

    def slopes(self, task, adapter, directions):
        self.asked.append("slopes")
        gradient = np.array(self.curvature) * (flat(adapter) - self.target)
        loss = self._loss(adapter)
        return loss, tuple(
            float(gradient @ flat(direction)) if math.isfinite(loss) else math.nan for direction in directions
        )

    def _loss(self, adapter):
        apart = flat(adapter) - self.target
        value = float(0.5 * np.array(self.curvature) @ apart**2)
        return value if value < self.limit else math.inf


def task(start=(0.0, 0.0, 0.0), phase="sft", reference=None, seed=7):
    return FitTask("run", 0, phase, adapter(*start), reference, MODEL, TRAIN, seed)


def update(client_id, numbers, samples=1, loss=1.0, kept=None):
    """A client's update of a few numbers; `kept` is how it is kept, if not in memory."""
    return ClientUpdate(
        run_id="run",
        client_id=client_id,
        round=0,
        phase="sft",
        adapter=kept or Adapter({"w": torch.tensor(tuple(numbers), dtype=torch.float32)}),
        contribution=Contribution(avg_loss=loss, num_samples=samples, seconds=0.0),
        report=TrainingReport(tokens=1, tokens_per_second=1.0, steps=1),
    )


def updates(rows, samples=None):
    return [
        update(index, row, count)
        for index, (row, count) in enumerate(zip(rows, samples or [1] * len(rows), strict=True))
    ]
