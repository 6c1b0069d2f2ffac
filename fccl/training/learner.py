"""The generic engine: any causal language model of transformers, LoRA of PEFT, a plain loop.

The oracle of every faster one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import torch
from pydantic import ValidationError
from torch import nn

from fccl.adapters.adapter import Adapter
from fccl.data.shards import ClientShard
from fccl.errors import DIVERGED, LOWER_RATE, AdapterError, TrainingError
from fccl.messages import ClientUpdate, FitTask, StatusListener
from fccl.model.encoding import encode_pairs, encode_sft
from fccl.model.language_model import LanguageModel, cpu_threads
from fccl.model.loading import load_model
from fccl.records.run import ClientStatus, Contribution, TrainingReport
from fccl.specs import ModelSpec, TrainSpec
from fccl.training.dpo import DpoObjective
from fccl.training.loop import LoopResult, Objective, StepReport, train
from fccl.training.references import References
from fccl.training.sft import SftObjective


@dataclass
class GenericLearner:
    """Trains on a shard from the task's adapter. Keeps the base model, and reference log-probabilities.

    `ranks` says how many directions clients train: nothing for as many as the federation's LoRA has, one number for all
    clients, or one for each. Every rank has a model of its own in memory.
    """

    models: dict[ModelSpec, LanguageModel] = field(default_factory=dict)
    ranks: Sequence[int] = ()
    references: References = field(default_factory=References)

    def model(self, spec: ModelSpec) -> LanguageModel:
        """The model of this spec, loaded at the first call. Raises `ModelError`."""
        if spec not in self.models:
            self.models[spec] = load_model(spec)
        return self.models[spec]

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        """One client's local training.

        Raises `TrainingError` when it diverges, `AdapterError` when its rank is not possible.
        """
        model = self.model(task.model.of_rank(self._rank(task, shard.client_id)))
        status = _StatusWriter(task.status(shard.client_id, "training"), on_status)
        status("training", None)
        with cpu_threads(task.train.threads):
            started = time.monotonic()
            if task.phase == "sft":
                result, samples, truncated = self._sft(model, task, shard, status)
            else:
                result, samples, truncated = self._dpo(model, task, shard, status)
            seconds = time.monotonic() - started
        status("done", None)
        return ClientUpdate(
            run_id=task.run_id,
            client_id=shard.client_id,
            round=task.round,
            phase=task.phase,
            adapter=_trained_adapter(model),
            contribution=_contribution(result, samples, seconds),
            control=_control(model, task.train, result),
            report=TrainingReport(
                tokens=result.tokens,
                tokens_per_second=result.tokens / max(result.seconds, 1e-9),
                steps=result.steps,
                truncated=truncated,
                first_loss=result.first_loss,
            ),
        )

    def _rank(self, task: FitTask, client_id: int) -> int:
        if not self.ranks:
            return task.model.lora_r
        rank = self.ranks[client_id] if len(self.ranks) > 1 else self.ranks[0]
        task.require_rank(rank)
        return rank

    def _sft(
        self, model: LanguageModel, task: FitTask, shard: ClientShard, status: _StatusWriter
    ) -> tuple[LoopResult, int, int]:
        rows = encode_sft(model.tokenizer, shard.sft, task.model.max_length)
        model.load(task.adapter)
        result = _train(model, SftObjective(model, rows), task, shard.client_id, status)
        return result, len(rows), sum(row.truncated for row in rows)

    def _dpo(
        self, model: LanguageModel, task: FitTask, shard: ClientShard, status: _StatusWriter
    ) -> tuple[LoopResult, int, int]:
        pairs = encode_pairs(model.tokenizer, shard.va, task.model.max_length)
        if task.reference is None:
            raise TrainingError("a VA task came without its reference adapter")
        reference = self.references.log_probs(model, task.reference, pairs, task.train.batch_size)
        model.load(task.adapter)
        objective = DpoObjective(model, pairs, reference, task.train.dpo_beta)
        result = _train(model, objective, task, shard.client_id, status)
        return result, len(pairs), sum(chosen.truncated or rejected.truncated for chosen, rejected in pairs)


def _train(
    model: LanguageModel, objective: Objective, task: FitTask, client_id: int, status: _StatusWriter
) -> LoopResult:
    """From the adapter that is loaded, under the task's settings and corrections."""
    with _trained(model, task.train) as factors:
        correction = None
        if task.corrections is not None:
            tensors = task.corrections(client_id).tensors
            correction = [tensors[name].to(model.device) for name in factors]
        return train(factors.values(), objective, task.train, task.client_seed(client_id), status.step, correction)


def _trained_adapter(model: LanguageModel) -> Adapter:
    try:
        return model.adapter()
    except AdapterError as error:  # the last step alone: any other is seen by the one after it
        raise TrainingError(f"{DIVERGED}: {error}", LOWER_RATE, resumable=False) from error


def _control(model: LanguageModel, spec: TrainSpec, result: LoopResult) -> Adapter | None:
    """The client's next c_i as an adapter; zero for factors that it may not move."""
    if result.control is None:
        return None
    with _trained(model, spec) as factors:
        means = dict(zip(factors, result.control, strict=True))
    return Adapter(
        {
            name: means[name].cpu() if name in means else torch.zeros(factor.shape)
            for name, factor in model.factors.items()
        }
    )


@contextmanager
def _trained(model: LanguageModel, spec: TrainSpec) -> Iterator[dict[str, nn.Parameter]]:
    """The factors that this training may move, by name; inside the block the others get no gradient."""
    frozen = [factor for name, factor in model.factors.items() if spec.freeze_a and ".lora_A." in name]
    for factor in frozen:
        factor.requires_grad_(False)
    try:
        yield {name: factor for name, factor in model.factors.items() if factor.requires_grad}
    finally:
        for factor in frozen:
            factor.requires_grad_(True)


def _contribution(result: LoopResult, samples: int, seconds: float) -> Contribution:
    try:
        return Contribution(avg_loss=result.avg_loss, num_samples=samples, seconds=seconds)
    except ValidationError as error:
        raise TrainingError(
            f"{DIVERGED}: the average loss is {result.avg_loss}", LOWER_RATE, resumable=False
        ) from error


@dataclass
class _StatusWriter:
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
        self("training", report)
