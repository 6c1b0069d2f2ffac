"""An objective under a model: the loss that the loop minimises, and the reference that it is measured against."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property

import torch
from torch import Tensor

from fccl.adapters.adapter import Adapter
from fccl.model.encoding import Responses
from fccl.model.language_model import LanguageModel, LossAndGradient
from fccl.model.objectives import Objective
from fccl.model.scoring import length_sorted_batches, token_counts


class ObjectiveUnderModel:
    """The mean of an objective's losses, with the model as it is. `factors` names those that training may move.

    At most `at_a_time` examples go through the model together; 0 is all. The sum of their gradients is that of all.
    """

    def __init__(
        self,
        model: LanguageModel,
        objective: Objective,
        factors: Collection[str] | None = None,
        at_a_time: int = 0,
    ) -> None:
        self.model, self.objective, self.factors, self.at_a_time = model, objective, factors, at_a_time

    @cached_property
    def lengths(self) -> list[int]:
        """The tokens of each example."""
        return token_counts(self.objective.examples)

    def count(self, indices: Sequence[int]) -> int:
        """The units that the loss of these examples is a mean over."""
        return self.objective.count(indices)

    def at(self, indices: Sequence[int]) -> LossAndGradient:
        """The mean loss of these examples, a unit, and its gradient."""
        size, count = self.at_a_time or len(indices), self.objective.count(indices)
        parts = [indices[start : start + size] for start in range(0, len(indices), size)]
        found = self._part(parts[0], count)
        for part in parts[1:]:
            found = _sum(found, self._part(part, count))
        return found

    def _part(self, indices: Sequence[int], count: int) -> LossAndGradient:
        """The part of some examples in a mean over `count` units."""
        return self.model.loss_and_gradient(
            [self.objective.examples[index] for index in indices],
            lambda log_probs: self.objective.total(indices, log_probs) / count,
            self.factors,
        )


def _sum(one: LossAndGradient, other: LossAndGradient) -> LossAndGradient:
    """Both together, in the tensors of the first."""
    gradient = {name: part.add_(other.gradient[name]) for name, part in one.gradient.items()}
    return LossAndGradient(one.loss + other.loss, gradient)


def reference_log_probs(
    model: LanguageModel, reference: Adapter, examples: Sequence[Responses], batch_size: int
) -> Tensor:
    """log π_ref of every response under the reference adapter: (n, k) float64. Leaves `reference` loaded."""
    model.load(reference)
    batches = length_sorted_batches(token_counts(examples), batch_size)
    found = torch.cat([model.response_log_probs([examples[index] for index in indices]) for indices in batches])
    result = torch.empty_like(found)
    result[[index for indices in batches for index in indices]] = found
    return result.double()
