"""The local training loop: epochs, schedule, clipping, accounts. The loss to minimise comes in as a `TrainingLoss`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from fccl.errors import DIVERGED, LOWER_RATE, TrainingError
from fccl.model.language_model import LossAndGradient
from fccl.specs import TrainSpec, named_seed, schedule_share
from fccl.training.batching import epoch_batches
from fccl.training.drift import Drift

Epochs = Sequence[Sequence[Sequence[int]]]  # the batches of each epoch: places of examples


class TrainingLoss(Protocol):
    """A loss over a client's examples, as a function of the factors that are trained."""

    @property
    def lengths(self) -> Sequence[int]:
        """The tokens of each example, for batching and for the account of tokens."""
        ...

    def count(self, indices: Sequence[int]) -> int:
        """The weight of these examples in the epoch's average."""
        ...

    def at(self, indices: Sequence[int]) -> LossAndGradient:
        """The mean loss of these examples and its gradient, with the factors as they are now."""
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

    Both are of the objective alone, without FedProx's term. `control` is SCAFFOLD's next c_i by factor, if there was a
    correction.
    """

    avg_loss: float
    first_loss: float
    steps: int
    tokens: int
    seconds: float
    control: Mapping[str, Tensor] | None = None


def batches_by_epoch(lengths: Sequence[int], spec: TrainSpec, seed: int) -> list[list[list[int]]]:
    """The batches of every epoch, in the order of the steps: indices of examples, of which `lengths` has the tokens."""
    return [epoch_batches(lengths, spec.batch_size, named_seed(seed, "order", epoch)) for epoch in range(spec.epochs)]


def diverged(step: int) -> TrainingError:
    """The error of a gradient that is not finite at step 0, 1, …"""
    return TrainingError(f"{DIVERGED}: the gradient is not finite at step {step + 1}", LOWER_RATE, resumable=False)


def learning_rate_factor(step: int, steps: int, spec: TrainSpec) -> float:
    """The share of the peak learning rate at step 0 … steps-1: a linear rise over `warmup`, then the schedule down to
    zero.
    """
    rising = round(spec.warmup * steps)
    if step < rising:
        return (step + 1) / rising
    progress = (step - rising) / max(1, steps - rising)
    return schedule_share(spec.schedule, progress)


def train(
    factors: Mapping[str, Tensor],
    loss: TrainingLoss,
    spec: TrainSpec,
    seed: int,
    on_step: Callable[[StepReport], None] = lambda _: None,
    correction: Mapping[str, Tensor] | None = None,
    centre: Mapping[str, Tensor] | None = None,
    epochs: Epochs | None = None,
) -> LoopResult:
    """Minimise the loss with AdamW (Loshchilov & Hutter 2019), in place. Raises `TrainingError` when it diverges.

    `correction` is SCAFFOLD's c - c_i by factor, zeros in a client's first round; None without control variates.
    `centre` is what `prox_mu` pulls to, by factor; None is where the factors stand.
    `epochs` are the batches of each epoch, where another draw than that of `seed` has made them.
    """
    drift = Drift(factors, spec.prox_mu, correction, centre)
    optimizer = torch.optim.AdamW(factors.values(), lr=spec.learning_rate, weight_decay=spec.weight_decay, fused=True)
    epochs = batches_by_epoch(loss.lengths, spec, seed) if epochs is None else epochs
    steps, step, tokens, first_loss = sum(map(len, epochs)), 0, 0, math.nan
    started = time.monotonic()
    for batches in epochs:
        total, count = 0.0, 0
        for indices in batches:
            optimizer.param_groups[0]["lr"] = spec.learning_rate * learning_rate_factor(step, steps, spec)
            found, weight = loss.at(indices), loss.count(indices)
            _take_step(drift.corrected(found.gradient), factors, optimizer, spec, step)
            first_loss = found.loss if step == 0 else first_loss
            total, count, step = total + found.loss * weight, count + weight, step + 1
            tokens += sum(loss.lengths[index] for index in indices)
            on_step(StepReport(step, steps, found.loss, tokens / max(1e-9, time.monotonic() - started)))
    return LoopResult(total / count, first_loss, steps, tokens, time.monotonic() - started, drift.control())


def _take_step(
    gradient: Mapping[str, Tensor],
    factors: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    spec: TrainSpec,
    step: int,
) -> None:
    for name, factor in factors.items():
        factor.grad = gradient[name]
    norm = nn.utils.clip_grad_norm_(factors.values(), spec.max_grad_norm)
    if not math.isfinite(float(norm)):
        raise diverged(step)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
