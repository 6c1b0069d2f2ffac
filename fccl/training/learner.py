"""`GenericLearner`: local training with any `LanguageModel`, in a plain loop of steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from fccl.adapters.adapter import Adapter
from fccl.data.shards import ClientShard
from fccl.errors import DIVERGED, LOWER_RATE, AdapterError, TrainingError
from fccl.messages import ClientUpdate, FitTask, StatusListener
from fccl.model.encoding import Responses, encode
from fccl.model.language_model import LanguageModel, cpu_threads
from fccl.model.loading import Models
from fccl.model.objectives import Objective, objective_for
from fccl.privacy.secrets import Draws
from fccl.records.run import ClientStatus, Contribution, TrainingReport
from fccl.specs import TrainSpec
from fccl.training.by_example import train_by_example
from fccl.training.loop import LoopResult, StepReport, train
from fccl.training.objective import ObjectiveUnderModel
from fccl.training.references import References

_Train = Callable[[LanguageModel, Objective, FitTask, int, "StatusWriter"], LoopResult]


@dataclass
class GenericLearner:
    """Trains on a shard from the task's adapter. Keeps the models, and reference log-probabilities.

    `ranks` are the numbers of directions that clients train: empty for as many as the federation's LoRA has, one number
    for all clients, or one for each. Every rank has a model of its own in memory.
    """

    models: Models = field(default_factory=Models)
    ranks: Sequence[int] = ()
    references: References = field(default_factory=References)

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        """One client's local training.

        Raises `TrainingError` when it diverges, `AdapterError` when its rank is not possible.
        """
        return self._fit(task, shard, on_status, _train)

    def fit_by_example(
        self, task: FitTask, shard: ClientShard, on_status: StatusListener, draws: Callable[..., Draws]
    ) -> ClientUpdate:
        """One client's local training by DP-SGD. Raises as `fit`."""
        return self._fit(task, shard, on_status, partial(_train_by_example, draws))

    def _fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener, train: _Train) -> ClientUpdate:
        model = self.model_of(task, shard.client_id)
        status = StatusWriter(task.status(shard.client_id, "training"), on_status)
        status("training", None)
        with cpu_threads(task.train.threads):
            started = time.monotonic()
            objective = self.objective_of(model, task, shard)
            model.load(task.adapter)
            result = train(model, objective, task, shard.client_id, status)
            seconds = time.monotonic() - started
        status("done", None)
        return update_of(task, shard.client_id, trained_adapter(model.adapter), result, objective.examples, seconds)

    def model_of(self, task: FitTask, client_id: int) -> LanguageModel:
        """The model that a client trains in: of its rank. Raises as `rank` does, and `ModelError`."""
        return self.models.of(task.model.of_rank(self.rank(task, client_id)))

    def rank(self, task: FitTask, client_id: int) -> int:
        """The number of directions that a client trains. Raises `AdapterError` when the task does not allow it."""
        if not self.ranks:
            return task.model.lora_r
        rank = self.ranks[client_id] if len(self.ranks) > 1 else self.ranks[0]
        task.require_rank(rank)
        return rank

    def objective_of(self, model: LanguageModel, task: FitTask, shard: ClientShard) -> Objective:
        """The task's loss over the shard's examples. May leave another adapter loaded."""
        spec = task.model
        examples = encode(model.tokenizer, task.phase, shard.require(task.phase), spec.max_length, spec.text)
        reference = None
        if task.reference is not None:
            reference = self.references.log_probs(model, task.reference, examples, task.train.at_a_time)
        return objective_for(task.phase, examples, reference, task.train.preference)


def _train_by_example(
    draws: Callable[..., Draws],
    model: LanguageModel,
    objective: Objective,
    task: FitTask,
    client_id: int,
    status: StatusWriter,
) -> LoopResult:
    """The same by DP-SGD: what differs between clients comes from `draws`."""
    return train_by_example(model, objective, task, _moved(model, task), status.step, draws)


def _moved(model: LanguageModel, task: FitTask) -> dict[str, Tensor]:
    return {name: factor for name, factor in model.factors.items() if moves(name, task.train)}


def _train(
    model: LanguageModel, objective: Objective, task: FitTask, client_id: int, status: StatusWriter
) -> LoopResult:
    """From the adapter that is loaded, under the task's settings and corrections."""
    factors = _moved(model, task)
    correction, centre = correction_of(task, client_id, factors, model.device), centre_of(task, factors)
    loss = ObjectiveUnderModel(model, objective, factors, task.train.at_a_time)
    return train(factors, loss, task.train, task.client_seed(client_id), status.step, correction, centre)


def correction_of(
    task: FitTask, client_id: int, names: Collection[str], device: torch.device
) -> dict[str, Tensor] | None:
    """SCAFFOLD's c - c_i of one client, of these factors; None without control variates."""
    if task.corrections is None:
        return None
    tensors = task.corrections.of(client_id).tensors
    return {name: tensors[name].to(device) for name in names}


def centre_of(task: FitTask, factors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The adapter that training is pulled to, of these factors; None where it is the one that it begins with."""
    return None if task.centre is None else {name: task.centre.tensors[name].to(each) for name, each in factors.items()}


def update_of(
    task: FitTask,
    client_id: int,
    adapter: Adapter,
    result: LoopResult,
    examples: Sequence[Responses],
    seconds: float,
) -> ClientUpdate:
    """One client's answer. Raises `TrainingError` when its average loss is not finite."""
    return task.update(
        client_id,
        adapter=adapter,
        contribution=contribution_of(result, len(examples), seconds),
        control=_control(adapter, result),
        report=report_of(result, sum(any(row.truncated for row in responses) for responses in examples)),
    )


def moves(name: str, spec: TrainSpec) -> bool:
    """Whether this training may move the factor of this name."""
    return not (spec.freeze_a and ".lora_A." in name)


def trained_adapter(take: Callable[[], Adapter]) -> Adapter:
    """The adapter that was learned. Raises `TrainingError` when it is not finite."""
    try:
        return take()
    except AdapterError as error:  # the last step alone: any other is seen by the one after it
        raise TrainingError(f"{DIVERGED}: {error}", LOWER_RATE, resumable=False) from error


def _control(adapter: Adapter, result: LoopResult) -> Adapter | None:
    """The client's next c_i as an adapter; zero for factors that it may not move."""
    if result.control is None:
        return None
    zeros = {name: torch.zeros(shape) for name, shape in adapter.form.shapes.items()}
    return Adapter(zeros | {name: mean.cpu() for name, mean in result.control.items()})


def contribution_of(result: LoopResult, samples: int, seconds: float) -> Contribution:
    """The report of a client on its training. Raises `TrainingError` when its average loss is not finite."""
    try:
        return Contribution(avg_loss=result.avg_loss, num_samples=samples, seconds=seconds)
    except ValidationError as error:
        raise TrainingError(
            f"{DIVERGED}: the average loss is {result.avg_loss}", LOWER_RATE, resumable=False
        ) from error


def report_of(result: LoopResult, truncated: int = 0) -> TrainingReport:
    """The other figures of a training, of which so many examples were cut to fit."""
    return TrainingReport(
        tokens=result.tokens,
        tokens_per_second=result.tokens / max(result.seconds, 1e-9),
        steps=result.steps,
        truncated=truncated,
        first_loss=result.first_loss,
    )


@dataclass
class StatusWriter:
    """Makes heartbeats of one client's training."""

    status: ClientStatus
    listen: StatusListener

    def __call__(self, state: Literal["training", "done"], report: StepReport | None) -> None:
        changes = {"state": state, "time": time.time()}
        if report is not None:
            changes |= {
                "step": report.step,
                "steps": report.steps,
                "loss": report.loss,
                "tokens_per_second": report.tokens_per_second,
            }
        self.status = self.status.model_copy(update=changes)
        self.listen(self.status)

    def step(self, report: StepReport) -> None:
        """After a step."""
        self("training", report)
