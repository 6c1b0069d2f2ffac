"""A round's updates as changes of the adapter x that they began from: the loss of x + sum_i c_i (u_i - x) for any c.

The tools of rules that search for c on the server's examples. They count the passes over the examples that it takes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from itertools import chain
from typing import TypeVar

import numpy as np
import torch

from fccl.adapters.adapter import Adapter
from fccl.contribution.adam import Numbers
from fccl.contribution.protocol import LearnLoss, Weighing
from fccl.contribution.reported import proportional
from fccl.contribution.verified import finite
from fccl.errors import AdapterError
from fccl.messages import ClientUpdate, FitTask
from fccl.records.run import Verification

ROUNDING = 1e-12  # of the sum of coefficients: a sum of 1 but for this takes nothing of x
Rule = TypeVar("Rule")
Weigh = Callable[[Rule, FitTask, Sequence[ClientUpdate]], Weighing]


@dataclass
class Combinations:
    """`loss` over the combinations of one round's updates. `passes` counts forward passes over the examples, with a
    backward pass or without.
    """

    loss: LearnLoss
    task: FitTask
    updates: Sequence[ClientUpdate]
    passes: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def by_samples(self) -> tuple[float, ...]:
        """FedAvg's weights."""
        return proportional([float(update.contribution.num_samples) for update in self.updates])

    def at(self, coefficients: Sequence[float]) -> float:
        """L there; infinity where it, or the adapter itself, is not finite."""
        adapter = self.adapter(coefficients)
        if adapter is None:
            return math.inf
        self.passes += 1
        return self.loss.loss(self.task, adapter)

    def slopes(self, coefficients: Sequence[float]) -> tuple[float, tuple[float, ...]]:
        """L there, and <grad L, u_i - x> of each update. Where L is not finite neither need be."""
        adapter = self.adapter(coefficients)
        if adapter is None:
            return math.inf, (math.nan,) * len(self.updates)
        self.passes += 1
        directions = chain([self.task.trained], (update.adapter.load() for update in self.updates))
        loss, (start, *ends) = self.loss.slopes(self.task, adapter, directions)
        return loss, tuple(end - start for end in ends)

    def by_group(self, coefficients: Sequence[float], slopes: bool = True) -> tuple[Numbers, Numbers]:
        """L and <grad L, u_i - x> on each of k groups of the examples: (k,) and (k, n); without `slopes` (k,) and
        (k, 0). Where the adapter is not finite there is one group, of an infinite loss.
        """
        adapter, count = self.adapter(coefficients), len(self.updates) if slopes else 0
        if adapter is None:
            return np.array([math.inf]), np.full((1, count), math.nan)
        self.passes += 1
        if not slopes:
            losses, _ = self.loss.by_group(self.task, adapter)
            return np.array(losses), np.zeros((len(losses), 0))
        ends = (update.adapter.load() for update in self.updates)
        losses, slopes_along = self.loss.by_group(self.task, adapter, chain([self.task.trained], ends))
        along = np.array(slopes_along)  # (k, 1 + n)
        return np.array(losses), along[:, 1:] - along[:, :1]

    def adapter(self, coefficients: Sequence[float]) -> Adapter | None:
        """x + sum_i c_i (u_i - x), summed in float64 and rounded once; None where that is too large for float32.

        Loads one update at a time, and none whose coefficient is 0.
        """
        start = self.task.trained
        rest = 1 - math.fsum(coefficients)
        of_start = [(rest, start)] if abs(rest) > ROUNDING else []
        total = {name: torch.zeros(tensor.shape, dtype=torch.float64) for name, tensor in start.tensors.items()}
        for coefficient, adapter in chain(of_start, self._counted(coefficients)):
            for name, tensor in adapter.tensors.items():
                total[name].add_(tensor.double(), alpha=coefficient)
        try:
            return Adapter({name: tensor.float() for name, tensor in total.items()})
        except AdapterError:
            return None

    def weighing(
        self,
        weights: Sequence[float],
        scores: Sequence[float],
        stretch: Sequence[float] = (),
        path: Sequence[float] = (),
        taken: int = 0,
        standing: Sequence[float] = (),
    ) -> Weighing:
        """The result of a search. `path` has the losses on its way from FedAvg's weights, `taken` which was chosen.
        `standing` is what the phase's rounds so far say of each client, where the rule remembers them.
        """
        verification = Verification(
            examples=self.loss.examples(self.task.phase),
            prior=self.by_samples,
            loss_prior=finite(path[0]) if path else None,
            loss_weights=finite(path[taken]) if path else None,
            standing=tuple(standing),
            path=tuple(map(finite, path)),
            taken=taken,
            passes=self.passes,
            seconds=time.monotonic() - self.started,
        )
        return Weighing(
            tuple(weights), tuple(scores), verification, examples=self.loss.drawn(self.task), stretch=tuple(stretch)
        )

    def _counted(self, coefficients: Sequence[float]) -> Iterator[tuple[float, Adapter]]:
        for coefficient, update in zip(coefficients, self.updates, strict=True):
            if coefficient:
                yield coefficient, update.adapter.load()


def in_client_order(weigh: Weigh[Rule]) -> Weigh[Rule]:
    """A `weigh` that sees the updates in client order, whatever their order, and whose result is in theirs.

    A search may end elsewhere for a difference in the last bit, such as the order of a sum.
    """

    @wraps(weigh)
    def ordered(rule: Rule, task: FitTask, updates: Sequence[ClientUpdate]) -> Weighing:
        order = sorted(range(len(updates)), key=lambda place: updates[place].client_id)
        return reordered(weigh(rule, task, [updates[place] for place in order]), order)

    return ordered


def reordered(weighing: Weighing, order: Sequence[int]) -> Weighing:
    """The weighing whose k-th update is the `order[k]`-th of the result."""
    places = sorted(range(len(order)), key=order.__getitem__)

    def back(values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(values[place] for place in places) if values else values

    verification = weighing.verification
    if verification is not None:
        said = {"prior": back(verification.prior), "standing": back(verification.standing)}
        verification = verification.model_copy(update=said)
    return replace(
        weighing,
        weights=back(weighing.weights),
        scores=back(weighing.scores),
        stretch=back(weighing.stretch),
        verification=verification,
    )
