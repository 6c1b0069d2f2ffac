"""The local training of several clients in one batch: the loop of `fccl.training.loop`, all clients in step.

Step i of every client is done at once. Each keeps its own order of batches, schedule, optimiser and account; one that
has done its steps, or has diverged, drops out, and the others go on. What a client learns is what it learns alone but
for rounding: the rounding of a matrix product may depend on the rows beside its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fccl.errors import TrainingError
from fccl.model.buckets import Buckets, own_size
from fccl.model.gpt2_clients import ClientFactors, gpt2_with
from fccl.model.gpt2_model import Gpt2LanguageModel
from fccl.model.objectives import Objective
from fccl.model.scoring import token_counts
from fccl.specs import TrainSpec
from fccl.training.clients_step import ClientsBatch, ClientsStep, clients_batch
from fccl.training.loop import LoopResult, StepReport, batches_by_epoch, diverged, learning_rate_factor
from fccl.training.recorded import RecordedSteps, Recorder, eager, recorder_for


@dataclass(frozen=True, eq=False)
class ClientWork:
    """One client's part in a training: its loss, its seed, and under SCAFFOLD its correction, by factor."""

    objective: Objective
    seed: int
    correction: Mapping[str, Tensor] | None = None
    on_step: Callable[[StepReport], None] = lambda report: None


@dataclass(eq=False)
class _Account:
    """One client's progress, and the figures that it reports; as in `fccl.training.loop.train`."""

    work: ClientWork
    spec: TrainSpec
    step: int = 0
    tokens: int = 0
    total: float = 0.0
    count: int = 0
    first_loss: float = math.nan
    error: TrainingError | None = None
    seconds: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.lengths = token_counts(self.work.objective.examples)
        epochs = batches_by_epoch(self.lengths, self.spec, self.work.seed)
        self.batches = [batch for batches in epochs for batch in batches]
        self._first_of_last = len(self.batches) - len(epochs[-1])

    @property
    def running(self) -> bool:
        return self.error is None and self.step < len(self.batches)

    @property
    def rate(self) -> float:
        return self.spec.learning_rate * learning_rate_factor(self.step, len(self.batches), self.spec)

    def done(self, loss: float) -> None:
        """A step was done, whose mean loss was this."""
        indices = self.batches[self.step]
        if self.step >= self._first_of_last:
            weight = self.work.objective.count(indices)
            self.total, self.count = self.total + loss * weight, self.count + weight
        self.first_loss = loss if self.step == 0 else self.first_loss
        self.step, self.tokens = self.step + 1, self.tokens + sum(self.lengths[index] for index in indices)
        self.seconds = time.monotonic() - self._started
        rate = self.tokens / max(1e-9, self.seconds)
        self.work.on_step(StepReport(self.step, len(self.batches), loss, rate))

    def result(self, control: Mapping[str, Tensor] | None) -> LoopResult:
        average = self.total / self.count
        return LoopResult(average, self.first_loss, len(self.batches), self.tokens, self.seconds, control)


@dataclass(eq=False)
class ClientsTraining:
    """Trains up to `clients` clients of one model at once; made once, used in every round of the same settings.

    On a GPU the step is recorded, one recording for each of a few sizes that batches are padded to. `recorder` puts
    another in the place of the device's own.
    """

    model: Gpt2LanguageModel
    clients: int
    spec: TrainSpec
    objective: Objective  # any of the phase
    corrected: bool = False
    recorder: Recorder | None = None

    def __post_init__(self) -> None:
        model = self.model
        self.factors = ClientFactors.of(model.factors, self.clients)
        gpt2 = gpt2_with(model, self.factors)
        self.step = ClientsStep(gpt2, self.factors, self.spec, self.objective, self.corrected)
        recorder = self.recorder or recorder_for(model.device)
        responses = len(self.objective.examples[0])
        self.sizing = Buckets(self.clients * self.spec.batch_size, responses) if recorder else own_size
        self.steps: RecordedSteps[ClientsBatch] = RecordedSteps(
            self.step, self.step.paused, model.device, recorder or eager
        )

    def train(self, works: Sequence[ClientWork]) -> list[LoopResult | TrainingError]:
        """From the adapter that the model has loaded: each client's account, or that it has diverged.

        `learned` then gives what it has learned. With fewer works than `clients`, the last places stay empty.
        """
        corrections = [work.correction for work in works if work.correction is not None]
        self.step.begin(self.model.factors, corrections)
        accounts = [_Account(work, self.spec) for work in works]
        while running := {client: account for client, account in enumerate(accounts) if account.running}:
            self._step(running)
        return [
            account.error or account.result(self.step.control(client, account.step))
            for client, account in enumerate(accounts)
        ]

    def learned(self, client: int) -> dict[str, Tensor]:
        """A copy of what a client has learned, as an adapter has it: by PEFT's names, float32."""
        return {
            name: part.float().cpu().clone(memory_format=torch.contiguous_format)
            for name, part in self.factors.of_client(self.factors.values, client).items()
        }

    def _step(self, running: Mapping[int, _Account]) -> None:
        """The next step of these clients. Where a gradient is not finite, its client takes the step again, alone.

        Another client's infinities may have reached it: a gradient is a sum over all tokens, and 0 · ∞ is no number.
        """
        losses, finite = self._done(running)
        for client, account in running.items():
            loss, fine = losses[client], finite[client]
            if not fine and len(running) > 1:
                alone, fines = self._done({client: account})
                loss, fine = alone[client], fines[client]
            if fine:
                account.done(loss)
            else:
                account.error = diverged(account.step)
                self.step.drop(client)

    def _done(self, running: Mapping[int, _Account]) -> tuple[list[float], list[bool]]:
        """One step of these clients in one batch: the loss of each, and whether its gradient was finite."""
        optimiser = self.step.optimiser
        rates = [running[client].rate if client in running else 0.0 for client in range(self.clients)]
        optimiser.rate.copy_(torch.tensor(rates, dtype=torch.float64))
        optimiser.active.copy_(torch.tensor([client in running for client in range(self.clients)]))
        self.steps(self.batch(running))
        return self.step.loss.tolist(), optimiser.norm.isfinite().tolist()

    def batch(self, running: Mapping[int, _Account]) -> ClientsBatch:
        """The examples of these clients' next steps."""
        chosen = {client: (each.work.objective, each.batches[each.step]) for client, each in running.items()}
        examples = [objective.examples[index] for objective, indices in chosen.values() for index in indices]
        return clients_batch(chosen, self.factors, self.sizing, self.model.entering(examples))
