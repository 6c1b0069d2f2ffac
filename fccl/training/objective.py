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
    """The mean of an objective's losses, with the model as it is. `factors` names those that training may move."""

    def __init__(self, model: LanguageModel, objective: Objective, factors: Collection[str] | None = None) -> None:
        self.model, self.objective, self.factors = model, objective, factors

    @cached_property
    def lengths(self) -> list[int]:
        """The tokens of each example."""
        return token_counts(self.objective.examples)

    def count(self, indices: Sequence[int]) -> int:
        """The units that the loss of these examples is a mean over."""
        return self.objective.count(indices)

    def at(self, indices: Sequence[int]) -> LossAndGradient:
        """The mean loss of these examples, a unit, and its gradient."""
        count = self.objective.count(indices)
        return self.model.loss_and_gradient(
            [self.objective.examples[index] for index in indices],
            lambda log_probs: self.objective.total(indices, log_probs) / count,
            self.factors,
        )


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
