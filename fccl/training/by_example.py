"""DP-SGD at a client (Abadi et al. 2016): gradients are clipped example by example, and the sum of a step is noised.

The optimiser sees noised gradients alone. So all that it makes of them, its momentum, schedule and FedProx's pull
included, costs no further privacy.

Shapes: E examples of a batch, k responses of each; P numbers in all factors that are trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial

import torch
from torch import Tensor

from fccl.messages import FitTask
from fccl.model.clipping import split_like
from fccl.model.language_model import LanguageModel, LossAndGradient
from fccl.model.objectives import Objective
from fccl.model.scoring import token_counts
from fccl.model.weights import arithmetic
from fccl.privacy.mechanism import noised, tag_of
from fccl.privacy.sampling import ExampleSampling
from fccl.privacy.secrets import Draws
from fccl.privacy.spec import PrivacySpec
from fccl.specs import TrainSpec
from fccl.training.loop import LoopResult, StepReport, train

DrawsOf = Callable[..., Draws]
BATCH, NOISE = "batch of a step", "noise of a step"  # purposes of draws


class NoisedGradients:
    """The gradients of DP-SGD as a `TrainingLoss`: at a batch, (Σ_i g_i min(1, C / ‖g_i‖) + z C N(0, I)) / b.

    The batch size b is the expected one, whatever the batch has. The loss of an example is its own mean: per response
    token, or that of its pair. No loss is computed to be shown: all are 0.
    """

    def __init__(
        self,
        model: LanguageModel,
        objective: Objective,
        factors: Mapping[str, Tensor],
        spec: PrivacySpec,
        train: TrainSpec,
        draws: DrawsOf,
    ) -> None:
        self._model, self._objective, self._factors, self._spec = model, objective, factors, spec
        self._at_a_time, self._draws, self._step = train.at_a_time, draws, 0
        self._expected = min(train.batch_size, len(objective.examples))

    @cached_property
    def lengths(self) -> list[int]:
        """The tokens of each example."""
        return token_counts(self._objective.examples)

    def count(self, indices: Sequence[int]) -> int:
        """1: the size of a batch is not to be told."""
        return 1

    def at(self, indices: Sequence[int]) -> LossAndGradient:
        """The next step's noised gradient. Its noise follows from the sum too: another sum has other noise."""
        total = self.clipped(indices)  # (P,)
        draws = self._draws(NOISE, self._step, tag_of((), total))
        noisy = noised(total, self._spec.deviation, torch.ones_like(total), draws) / self._expected
        self._step += 1
        parts = split_like(self._factors, noisy)
        return LossAndGradient(0.0, {name: parts[name].to(self._factors[name]) for name in parts})

    def clipped(self, indices: Sequence[int]) -> Tensor:
        """The sum of the clipped gradients of these examples, in float64, on the CPU: (P,)."""
        total = torch.zeros(sum(factor.numel() for factor in self._factors.values()), dtype=torch.float64)
        for start in range(0, len(indices), self._at_a_time):
            part = indices[start : start + self._at_a_time]
            examples = [self._objective.examples[index] for index in part]
            found = self._model.clipped_sum(examples, self._losses(part), self._spec.clip, self._factors)
            total += torch.cat([found[name].reshape(-1) for name in self._factors]).cpu()
        return total

    def _losses(self, indices: Sequence[int]) -> Callable[[Tensor, Sequence[int]], Tensor]:
        """The loss of each of these examples, a unit."""
        constants = self._objective.constants(indices)  # (E, m)
        units = torch.tensor([self._objective.count([index]) for index in indices], dtype=torch.float64)  # (E,)
        return partial(_losses_at, self._objective, constants.to(self._model.device), units.to(self._model.device))


def _losses_at(
    objective: Objective, constants: Tensor, units: Tensor, log_probs: Tensor, places: Sequence[int]
) -> Tensor:
    """log_probs (b, k) of the examples at b places -> (b,)."""
    at = list(places)
    return objective.losses(log_probs, constants[at]) / units[at]


def train_by_example(
    model: LanguageModel,
    objective: Objective,
    task: FitTask,
    factors: Mapping[str, Tensor],
    on_step: Callable[[StepReport], None],
    draws: DrawsOf,
) -> LoopResult:
    """DP-SGD from the adapter that is loaded, in place, with batches and noise of `draws`. It shows no loss.

    Draws follow from the examples and from this machine's arithmetic too: what would train otherwise draws otherwise.
    """
    if task.privacy is None:
        raise ValueError("the task asks for no differential privacy")
    own = partial(draws, _digest(model, objective))
    sampling = ExampleSampling.of(task.train, len(objective.examples))
    batches = sampling.batches(len(objective.examples), partial(own, BATCH))
    loss = NoisedGradients(model, objective, factors, task.privacy, task.train, own)
    return train(factors, loss, task.train, 0, on_step, epochs=[batches])


def _digest(model: LanguageModel, objective: Objective) -> str:
    rows = [[[row.ids, row.prompt_length, row.learnt] for row in each] for each in objective.examples]
    return hashlib.sha256(json.dumps([rows, arithmetic(model)], sort_keys=True).encode()).hexdigest()
