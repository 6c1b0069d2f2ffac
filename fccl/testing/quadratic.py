"""A loss with a formula: L(theta) = 1/2 (theta - t)' H (theta - t), over adapters of three numbers; and updates for it.

A weighing rule can be tried on it in a line, without a model:

    >>> from fccl.contribution.verified import Verified
    >>> rule = Verified(Quadratic(target=(1.0, 0.0, 0.0)))
    >>> rule.weigh(task(), updates([(1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)])).weights[0] > 0.99
    True
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from fccl.adapters.adapter import Adapter
from fccl.adapters.stored import StoredAdapter
from fccl.messages import ClientUpdate, FitTask
from fccl.records.run import Contribution, TrainingReport
from fccl.specs import Phase
from fccl.testing.toy import MODEL, TRAIN, adapter


def flat(adapter: Adapter) -> NDArray[np.float64]:
    """All values of an adapter, in the order of its tensors' names."""
    return np.concatenate([tensor.double().numpy().ravel() for tensor in adapter.tensors.values()])


@dataclass
class Quadratic:
    """`LearnLoss` with target `t` and a diagonal H. Above `limit` the loss overflows.

    `apart` makes it the mean of groups: what their targets have beside `t`, 0 on average. `asked` counts the calls by
    name.
    """

    target: tuple[float, ...] = (0.0, 0.0, 0.0)
    curvature: tuple[float, ...] = (1.0, 1.0, 1.0)
    limit: float = math.inf
    apart: tuple[tuple[float, ...], ...] = ((0.0, 0.0, 0.0),)
    asked: list[str] = field(default_factory=list)

    def examples(self, phase: Phase) -> int:
        """One."""
        return 1

    def drawn(self, task: FitTask) -> tuple[int, ...]:
        """The first."""
        return (0,)

    def loss(self, task: FitTask, adapter: Adapter) -> float:
        """L(adapter)."""
        self.asked.append("loss")
        return self._loss(adapter)

    def slopes(self, task: FitTask, adapter: Adapter, directions: Iterable[Adapter]) -> tuple[float, tuple[float, ...]]:
        """L(adapter), and how fast it rises along each direction."""
        self.asked.append("slopes")
        gradient = np.array(self.curvature) * (flat(adapter) - self.target)
        loss = self._loss(adapter)
        return loss, tuple(
            float(gradient @ flat(direction)) if math.isfinite(loss) else math.nan for direction in directions
        )

    def by_group(
        self, task: FitTask, adapter: Adapter, directions: Iterable[Adapter] = ()
    ) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]:
        """L with each group's own target, less what the spread of the targets adds to the mean."""
        ends = [flat(direction) for direction in directions]
        self.asked.append("by_group" if ends else "losses")
        curvature, apart = np.array(self.curvature), np.array(self.apart)  # (3,), (k, 3)
        errors = flat(adapter) - self.target - apart  # (k, 3)
        losses = 0.5 * errors**2 @ curvature - 0.5 * float((apart**2 @ curvature).mean())
        if not math.isfinite(self._loss(adapter)):
            losses = np.full(len(apart), math.inf)
        slopes = [[float(row @ end) for end in ends] for row in errors * curvature]
        return tuple(losses.tolist()), tuple(map(tuple, slopes)) if ends else ()

    def learnt(self, task: FitTask) -> ClientUpdate:
        """Half of the way from the task's adapter to the target."""
        self.asked.append("learnt")
        start = flat(task.adapter)
        return update(0, (start + 0.5 * (np.array(self.target) - start)).tolist(), phase=task.phase)

    def _loss(self, adapter: Adapter) -> float:
        apart = flat(adapter) - self.target
        value = float(0.5 * np.array(self.curvature) @ apart**2)
        return value if value < self.limit else math.inf


def task(
    start: Sequence[float] = (0.0, 0.0, 0.0), phase: Phase = "sft", reference: Adapter | None = None, seed: int = 7
) -> FitTask:
    """The task of a round that starts from these numbers."""
    return FitTask("run", 0, phase, adapter(*start), reference, MODEL, TRAIN, seed)


def update(
    client_id: int,
    numbers: Sequence[float],
    samples: int = 1,
    loss: float = 1.0,
    kept: Adapter | StoredAdapter | None = None,
    phase: Phase = "sft",
) -> ClientUpdate:
    """A client's update of these numbers and this report; `kept` is how it is kept, if not in memory."""
    return ClientUpdate(
        run_id="run",
        client_id=client_id,
        round=0,
        phase=phase,
        adapter=kept or Adapter({"w": torch.tensor(tuple(numbers), dtype=torch.float32)}),
        contribution=Contribution(avg_loss=loss, num_samples=samples, seconds=0.0),
        report=TrainingReport(tokens=1, tokens_per_second=1.0, steps=1),
    )


def updates(rows: Sequence[Sequence[float]], samples: Sequence[int] | None = None) -> list[ClientUpdate]:
    """One update for each row of numbers, from clients 0, 1, ..."""
    return [
        update(index, row, count)
        for index, (row, count) in enumerate(zip(rows, samples or [1] * len(rows), strict=True))
    ]
