"""`TrainerLearner`: a `Learner` that is made of trainers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import nn
from transformers import Trainer, set_seed

from fccl.adapters.adapter import Adapter
from fccl.data.shards import ClientShard
from fccl.errors import TrainingError
from fccl.hf.checks import loss_line, precision_line, require_can_do, template_line
from fccl.hf.lora import factors_of, load, read, require_same_lora
from fccl.hf.meter import Meter, measured
from fccl.hf.reference import hold_reference
from fccl.hf.same_base import require_same_base
from fccl.messages import ClientUpdate, EvaluateTask, FitTask, StatusListener, declined
from fccl.specs import Phase, TrainSpec
from fccl.training.learner import StatusWriter, contribution_of, moves, report_of, trained_adapter

_SEEDS = 2**32  # that numpy takes
_NO_GRADIENT = "does not require grad"  # torch's words for a loss that reaches no parameter


@dataclass
class TrainerLearner:
    """Trains with the trainer of the task's phase from the task's adapter, and declines a phase without one.

    The trainer keeps all of its own: data, loss, batches, epochs, learning rate, callbacks. From the task it takes the
    adapter, the reference and the seed. Optimiser and learning-rate schedule begin anew in every round.

    The update reports, as every client's:

    - the average loss over the last epoch, each step's loss weighted by its response tokens (SFT: the labels that are
      not -100) or its pairs (VA). A step's loss is what `training_step` returns, summed over its micro-batches, so it
      is the loss that the trainer minimises, with whatever the script has added to it;
    - as samples the length of the trainer's dataset;
    - as tokens all that were read, padding not counted where there is an attention mask, and their number a second;
    - the seconds of all that, the reference's log-probabilities included.
    """

    trainers: Mapping[Phase, Trainer]
    tell: Callable[[str], None] = lambda line: None
    _told: set[str] = field(default_factory=set)
    _reference: str = ""  # the hash of the one that the trainer's cached columns are of

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        """One round's training; of the shard its client alone is looked at.

        Raises `PhaseDeclined`, `ModelError` where the LoRA is not the federation's, and `TrainingError`.
        """
        trainer = self.trainers.get(task.phase)
        if trainer is None:
            raise declined(task.phase)
        self._require(trainer, task)
        status = StatusWriter(task.status(shard.client_id, "training"), on_status)
        status("training", None)
        meter, started = Meter(task.phase, status.step), time.monotonic()
        self._prepare(trainer, task, shard.client_id)
        with trainable(factors_of(trainer.model), task.train), measured(trainer, meter):
            _train(trainer)
        adapter = trained_adapter(lambda: read(factors_of(trainer.model)))
        result, samples = meter.result(time.monotonic() - started), len(trainer.train_dataset)
        status("done", None)
        return task.update(
            shard.client_id,
            adapter=adapter,
            contribution=contribution_of(result, samples, result.seconds),
            report=report_of(result),
        )

    def require_same_model(self, trainer: Trainer, task: FitTask | EvaluateTask) -> None:
        """Raises `ModelError` unless LoRA and base model are the federation's."""
        require_same_lora(trainer.model, task)
        require_same_base(trainer.model, task)

    def hold(self, trainer: Trainer, reference: Adapter) -> None:
        """Let the trainer's model hold this reference; what is cached of another is made anew. Raises `ModelError`."""
        hold_reference(trainer, reference, is_new=reference.sha256 != self._reference)
        self._reference = reference.sha256

    def _require(self, trainer: Trainer, task: FitTask) -> None:
        """Raises `ModelError` unless the trainer can do this task; says, once, in what it does another."""
        require_can_do(task)
        self.require_same_model(trainer, task)
        for line in (
            loss_line(trainer, task.phase, task.train.preference),
            precision_line(factors_of(trainer.model)),
            template_line(trainer, task.model.text),
        ):
            if line and line not in self._told:
                self._told.add(line)
                self.tell(line)

    def _prepare(self, trainer: Trainer, task: FitTask, client_id: int) -> None:
        """Everything that a round begins with: reference, adapter, seed, no optimiser."""
        if task.reference is not None:
            self.hold(trainer, task.reference)
        load(factors_of(trainer.model), task.adapter)
        trainer.optimizer = trainer.lr_scheduler = None
        set_seed(task.client_seed(client_id) % _SEEDS)


@contextmanager
def trainable(factors: Mapping[str, nn.Parameter], train: TrainSpec) -> Iterator[None]:
    """The factors that this training may move require gradients while the block runs: under `freeze_a` B alone."""
    for name, factor in factors.items():
        factor.requires_grad_(moves(name, train))
    try:
        yield
    finally:
        for factor in factors.values():
            factor.requires_grad_(True)


def _train(trainer: Trainer) -> None:
    try:
        trainer.train()
    except RuntimeError as error:
        if _NO_GRADIENT not in str(error):
            raise
        raise TrainingError(
            "no gradient reaches the trainer's LoRA: its gradient checkpointing is reentrant",
            hint="call model.enable_input_require_grads(), or give use_reentrant=False in the checkpointing kwargs",
        ) from error
