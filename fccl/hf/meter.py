"""The accounts of a trainer's training: loss, tokens, steps, in the federation's definitions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import Trainer, TrainerCallback

from fccl import phases
from fccl.errors import DIVERGED, TrainingError
from fccl.specs import Phase
from fccl.training.loop import LoopResult, StepReport

IGNORED = -100  # the label of a token that is not learnt


class Meter(TrainerCallback):  # type: ignore[misc]
    """Hears of every micro-batch and every step of one training; `on_step` gets a report after each step."""

    def __init__(self, phase: Phase, on_step: Callable[[StepReport], None]) -> None:
        self._phase, self._on_step = phase, on_step
        self._steps, self._tokens, self._first_loss = 0, 0, math.nan
        self._loss, self._units = 0.0, 0  # of the step's micro-batches so far
        self._total, self._count = 0.0, 0  # of the epoch's steps so far
        self._average = math.nan  # of the last epoch that had a step
        self._started = time.monotonic()

    def micro_batch(self, inputs: Mapping[str, Any], step: Callable[[], Tensor]) -> Tensor:
        """Run forward and backward pass of one micro-batch. Raises `TrainingError` when its loss is not finite."""
        units, tokens = units_of(self._phase, inputs), tokens_of(inputs)
        loss = step()
        if not math.isfinite(value := float(loss)):
            raise TrainingError(
                f"{DIVERGED}: the loss is {value} at step {self._steps + 1}",
                hint="a lower learning_rate in the trainer's arguments is the usual cure",
            )
        self._loss, self._units, self._tokens = self._loss + value, self._units + units, self._tokens + tokens
        return loss

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """The average is over one epoch."""
        self._total, self._count = 0.0, 0

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """After an optimiser step."""
        if self._steps == 0:
            self._first_loss = self._loss
        self._steps += 1
        self._total, self._count = self._total + self._loss * self._units, self._count + self._units
        self._average = self._total / max(1, self._count)
        speed = self._tokens / max(1e-9, time.monotonic() - self._started)
        self._on_step(StepReport(self._steps, max(self._steps, state.max_steps), self._loss, speed))
        self._loss, self._units = 0.0, 0

    def result(self, seconds: float) -> LoopResult:
        """The accounts of the whole training. Raises `TrainingError` where there was no step."""
        if not self._steps:
            raise TrainingError("the trainer took no step", hint="look at its dataset, max_steps and callbacks")
        return LoopResult(self._average, self._first_loss, self._steps, self._tokens, seconds)


@contextmanager
def measured(trainer: Trainer, meter: Meter) -> Iterator[None]:
    """The trainer's steps are told to the meter while the block runs."""
    step = trainer.training_step

    def training_step(model: Any, inputs: Mapping[str, Any], *rest: Any, **named: Any) -> Tensor:
        return meter.micro_batch(inputs, lambda: step(model, inputs, *rest, **named))

    trainer.training_step = training_step
    trainer.add_callback(meter)
    try:
        yield
    finally:
        trainer.remove_callback(meter)
        trainer.training_step = step


def units_of(phase: Phase, inputs: Mapping[str, Any]) -> int:
    """The weight of a micro-batch in the average: its response tokens, or in VA rounds its rows, a pair or two each.

    A batch without labels counts its rows.
    """
    labels = inputs.get("shift_labels", inputs["labels"][..., 1:]) if "labels" in inputs else None
    if labels is None or phases.of(phase).has_pairs:
        return len(next(value for value in inputs.values() if isinstance(value, Tensor)))
    return int((labels != IGNORED).sum())


def tokens_of(inputs: Mapping[str, Any]) -> int:
    """The tokens of a micro-batch: those of its attention mask, else all of its input ids."""
    mask = inputs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.ndim == 2:  # (B, T)
        return int(mask.sum())
    ids = inputs.get("input_ids")
    return int(ids.numel()) if isinstance(ids, Tensor) else 0
