"""The local training loop: epochs, schedule, clipping, accounts. What is minimised comes in as an `Objective`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from fccl.errors import DIVERGED, LOWER_RATE, TrainingError
from fccl.specs import TrainSpec, named_seed
from fccl.training.batching import epoch_batches
from fccl.training.drift import Drift


@dataclass(frozen=True)
class StepLoss:
    """One batch: the tensor to differentiate, and its share in the epoch's average, `total / count`."""

    loss: Tensor
    total: float
    count: int


class Objective(Protocol):
    """A loss over a client's examples.

    `lengths` has the tokens of each example, for batching and for the account of tokens.
    """

    lengths: Sequence[int]

    def loss(self, indices: Sequence[int]) -> StepLoss:
        """The loss of the examples with these indices."""
        ...


@dataclass(frozen=True)
class StepReport:
    """Where training stands after a step."""

    step: int
    steps: int
    loss: float
    tokens_per_second: float


@dataclass(frozen=True)
class LoopResult:
    """`avg_loss` is over the last epoch, in the objective's unit; `first_loss` is the first batch's, before any step.

    Both are of the objective alone, without FedProx's term. `control` is SCAFFOLD's next c_i, one tensor a parameter,
    if there was a correction.
    """

    avg_loss: float
    first_loss: float
    steps: int
    tokens: int
    seconds: float
    control: list[Tensor] | None = None


def learning_rate_factor(step: int, steps: int, spec: TrainSpec) -> float:
    """The share of the peak learning rate at step 0 … steps-1: a linear rise over `warmup`, then the schedule down to
    zero.
    """
    rising = round(spec.warmup * steps)
    if step < rising:
        return (step + 1) / rising
    progress = (step - rising) / max(1, steps - rising)
    return {"constant": 1.0, "linear": 1.0 - progress, "cosine": 0.5 * (1 + math.cos(math.pi * progress))}[
        spec.schedule
    ]


def train(
    parameters: Iterable[nn.Parameter],
    objective: Objective,
    spec: TrainSpec,
    seed: int,
    on_step: Callable[[StepReport], None] = lambda _: None,
    correction: Sequence[Tensor] | None = None,
) -> LoopResult:
    """Minimise the objective with AdamW (Loshchilov & Hutter 2019). Raises `TrainingError` when the loss stops being
    finite.

    `correction` is SCAFFOLD's c - c_i, one tensor a parameter, zeros in a client's first round; None when there are no
    control variates.
    """
    parameters = list(parameters)
    drift = Drift(parameters, spec.prox_mu, correction)
    optimizer = torch.optim.AdamW(parameters, lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)
    epochs = [
        epoch_batches(objective.lengths, spec.batch_size, named_seed(seed, "order", epoch))
        for epoch in range(spec.epochs)
    ]
    steps, step, tokens, first_loss = sum(map(len, epochs)), 0, 0, math.nan
    started = time.monotonic()
    for batches in epochs:
        total, count = 0.0, 0
        for indices in batches:
            for group in optimizer.param_groups:
                group["lr"] = spec.learning_rate * learning_rate_factor(step, steps, spec)
            part = objective.loss(indices)
            value = part.total / part.count
            _take_step(part.loss, parameters, optimizer, drift, spec, step)
            first_loss = value if step == 0 else first_loss
            total, count, step = total + part.total, count + part.count, step + 1
            tokens += sum(objective.lengths[index] for index in indices)
            on_step(StepReport(step, steps, value, tokens / max(1e-9, time.monotonic() - started)))
    return LoopResult(total / count, first_loss, steps, tokens, time.monotonic() - started, drift.control())


def _take_step(
    loss: Tensor,
    parameters: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    drift: Drift,
    spec: TrainSpec,
    step: int,
) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    drift.correct()
    norm = nn.utils.clip_grad_norm_(parameters, spec.max_grad_norm)
    if not math.isfinite(float(norm)):
        raise TrainingError(f"{DIVERGED}: the gradient is not finite at step {step + 1}", LOWER_RATE, resumable=False)
    optimizer.step()
