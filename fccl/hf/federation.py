"""The loop of a script that takes part in a federation with trainers of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Unpack

from transformers import Trainer

from fccl.data.shards import ClientShard
from fccl.errors import SettingsError, TrainingError
from fccl.hf.checks import require_usable
from fccl.hf.declaring import TrainerDeclarer
from fccl.hf.evaluating import TrainerEvaluator
from fccl.hf.learner import TrainerLearner
from fccl.library.client import Client
from fccl.library.data import Tell, quiet
from fccl.library.given import WholeClientArguments
from fccl.messages import ClientUpdate, FitTask, Service
from fccl.specs import Phase


def federate(
    *,
    sft: Trainer | None = None,
    va: Trainer | None = None,
    tell: Tell = quiet,
    **settings: Unpack[WholeClientArguments],
) -> FederatedTrainers:
    """One client of a federation that trains with these trainers: `sft` in SFT rounds, `va` in VA rounds.

    Either may be missing: the client then declines that phase, and nobody waits for it there. The other arguments are
    those of `fccl.Client`: `client_id`, `exchange_dir`, `keys_dir`, `state_dir` and so on, or the environment's. `tell`
    hears a line for everything that happens; by default nothing is printed.

    Raises `SettingsError` for a setting or a trainer that cannot take part, `DataError` for one without examples.
    """
    if files := sorted({"sft_data", "va_data", "skip_bad_rows"} & settings.keys()):
        raise SettingsError(f"federate does not read {files[0]}", hint="give the examples to the trainer")
    trainers: dict[Phase, Trainer] = {}
    for phase, trainer in _by_phase(sft, va).items():
        if trainer is not None:
            require_usable(trainer, phase)
            trainers[phase] = trainer
    if not trainers:
        raise SettingsError("federate was given no trainer", hint="give it one with sft=, va= or both")
    learner = TrainerLearner(trainers, tell)
    services: list[Service] = [TrainerDeclarer(trainers), TrainerEvaluator(learner)]
    client = Client(learner=learner, load_shard=_no_shard, services=services, tell=tell, **settings)
    return FederatedTrainers(learner, client)


class FederatedTrainers:
    """The rounds of a federation, one after another, for a script that trains in them.

    Iterating gives the task of every round that asks this client in a phase that it has a trainer for, until the run is
    done. In between the client waits, with its heartbeat. A script that is killed is simply started again: a round that
    it had answered stays answered, and one that it had begun is begun anew, from the same seed.
    """

    def __init__(self, learner: TrainerLearner, client: Client) -> None:
        self._learner, self._client = learner, client

    def __iter__(self) -> Iterator[FitTask]:
        """The tasks; one that is not trained comes again. Raises as `fccl.Client.run`."""
        for task in self._client.tasks():
            if task.phase in self._learner.trainers:
                yield task
            else:
                self._client.train(task)  # whose answer is that it declines the phase

    def train(self, task: FitTask) -> ClientUpdate:
        """Train the task with the trainer of its phase, and send the update with its loss, samples, tokens and seconds.

        Whatever the training raises is told to the server, and then raised here. A script that catches it goes on with
        the next round. Raises `ModelError` where the trainer's LoRA is not the federation's, `TrainingError` where
        training diverges.
        """
        answer = self._client.train(task)
        if isinstance(answer, ClientUpdate):
            return answer
        raise answer.error or TrainingError(answer.reason)


def _by_phase(sft: Trainer | None, va: Trainer | None) -> Mapping[Phase, Trainer | None]:
    return {"sft": sft, "va": va}


def _no_shard(client_id: int) -> ClientShard:
    """The trainers have their examples themselves."""
    return ClientShard(client_id, (), ())
