"""Evaluation by trainers: the loss of an adapter on the trainer's own examples, for requests of kind `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from transformers import Trainer

from fccl import phases
from fccl.data.shards import ClientShard
from fccl.errors import ModelError, TrainingError
from fccl.hf.checks import loss_line
from fccl.hf.learner import TrainerLearner
from fccl.hf.lora import factors_of, load
from fccl.hf.meter import units_of
from fccl.messages import ClientEvaluation, EvaluateTask, StatusListener, status_now
from fccl.model.language_model import cpu_threads
from fccl.specs import Phase


@dataclass(frozen=True)
class TrainerEvaluator:
    """Scores adapters by the loss that the trainer of the phase minimises, on its `train_dataset`, in its own batches
    (`per_device_eval_batch_size`).

    The mean is over the response tokens (SFT: labels that are not -100) or over the pairs (VA), as it is for every
    client. A trainer whose preference loss is not the request's answers with that reason: the two are no one mean.
    """

    learner: TrainerLearner
    asked: ClassVar[type[EvaluateTask]] = EvaluateTask

    def answer(self, request: EvaluateTask, shard: ClientShard, on_status: StatusListener) -> ClientEvaluation:
        """The loss of the request's adapter, which stays loaded.

        Raises `ModelError` where there is no trainer for the phase, or its LoRA, base or loss is another;
        `TrainingError` where the loss is not finite.
        """
        trainer = self._trainer(request)
        on_status(status_now(request, shard.client_id, "evaluating"))
        if request.reference is not None:
            self.learner.hold(trainer, request.reference)
        load(factors_of(trainer.model), request.adapter)
        with cpu_threads(request.threads):
            loss, units = mean_loss(trainer, request.phase)
        examples = len(trainer.train_dataset)
        if phases.of(request.phase).has_pairs:
            units = examples
        return ClientEvaluation(client_id=shard.client_id, loss=loss, units=units, examples=examples)

    def _trainer(self, request: EvaluateTask) -> Trainer:
        trainer = self.learner.trainers.get(request.phase)
        if trainer is None:
            raise ModelError(f"there is no trainer for {phases.of(request.phase).name}", hint="give federate one")
        self.learner.require_same_model(trainer, request)
        if line := loss_line(trainer, request.phase, request.preference):
            raise ModelError(line, hint="losses of two kinds have no mean")
        return trainer


def mean_loss(trainer: Trainer, phase: Phase) -> tuple[float, int]:
    """The trainer's loss over its `train_dataset` without gradients, and the units that it is the mean of.

    Raises `TrainingError` when it is not finite.
    """
    trainer.model.eval()
    total, count = 0.0, 0
    for inputs in trainer.get_eval_dataloader(trainer.train_dataset):
        units = units_of(phase, inputs)
        loss, _, _ = trainer.prediction_step(trainer.model, inputs, prediction_loss_only=True)
        total, count = total + float(loss.mean()) * units, count + units
    if not count or not torch.isfinite(torch.tensor(total)):
        raise TrainingError(f"the trainer's loss over its examples is {total / max(1, count)}")
    return total / count, count
