"""`ClientsLearner`: the learner of a process that trains several clients in one batch where their model allows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from fccl.adapters.adapter import Adapter
from fccl.data.shards import ClientShard
from fccl.errors import TrainingError
from fccl.messages import Answer, ClientFailure, ClientUpdate, FitTask, LoadShard, StatusListener, attempt, guarded
from fccl.model.gpt2_model import Gpt2LanguageModel
from fccl.model.language_model import cpu_threads
from fccl.model.objectives import Objective
from fccl.specs import ModelSpec, Phase, TrainSpec
from fccl.training.clients_training import ClientsTraining, ClientWork
from fccl.training.learner import GenericLearner, StatusWriter, correction_of, moves, trained_adapter, update_of
from fccl.training.loop import LoopResult

Key = tuple[Phase, ModelSpec, TrainSpec, int, bool]  # what a training is made for


@dataclass(frozen=True, eq=False)
class _Ready:
    """A client whose examples are encoded, and whose reference is known."""

    client_id: int
    model: Gpt2LanguageModel
    objective: Objective
    status: StatusWriter


@dataclass
class ClientsLearner(GenericLearner):
    """Trains the clients of a round together under the engine `gpt2`, and one after another under any other.

    Clients of the same rank train together. The clients of a batch are those that were asked for at once, so a round
    that is done again gives the same bytes.
    """

    _trainings: dict[Key, ClientsTraining] = field(default_factory=dict, init=False)

    def fit_together(
        self, task: FitTask, client_ids: Sequence[int], load_shard: LoadShard, on_status: StatusListener
    ) -> list[Answer]:
        """The answers of these clients, in their order. A client's error is its own failure."""
        answers: dict[int, Answer] = {}
        ready: dict[int, list[_Ready]] = {}  # by model, which each rank has one of
        for client_id in client_ids:
            begun = attempt(self._begun, task, client_id, load_shard, on_status)
            if isinstance(begun, _Ready):
                ready.setdefault(id(begun.model), []).append(begun)
            else:
                answers[client_id] = begun
        for alike in ready.values():
            found = self._trained(task, alike, len(client_ids))
            answers |= {each.client_id: answer for each, answer in zip(alike, found, strict=True)}
        return [answers[client_id] for client_id in client_ids]

    def _begun(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> _Ready | ClientUpdate:
        """A client that can train with others, or the update of one that cannot."""
        model = self.model_of(task, shard.client_id)
        if not isinstance(model, Gpt2LanguageModel) or task.train.micro_batch_size:
            return self.fit(task, shard, on_status)
        status = StatusWriter(task.status(shard.client_id, "training"), on_status)
        status("training", None)
        with cpu_threads(task.train.threads):
            return _Ready(shard.client_id, model, self.objective_of(model, task, shard), status)

    def _trained(self, task: FitTask, ready: Sequence[_Ready], at_once: int) -> list[Answer]:
        """The answers of clients of one model. Whatever ends their common training is the failure of all of them."""
        model = ready[0].model
        names = [name for name in model.factors if moves(name, task.train)]
        works = [
            ClientWork(
                each.objective,
                task.client_seed(each.client_id),
                correction_of(task, each.client_id, names, model.device),
                each.status.step,
            )
            for each in ready
        ]
        with cpu_threads(task.train.threads):
            found = guarded(ready[0].client_id, lambda: self._train(task, ready[0], works, at_once))
        if isinstance(found, ClientFailure):
            return [ClientFailure(each.client_id, found.reason) for each in ready]
        training, results = found
        return [
            guarded(each.client_id, partial(_update, task, each, training, place, result))
            for place, (each, result) in enumerate(zip(ready, results, strict=True))
        ]

    def _train(
        self, task: FitTask, any_ready: _Ready, works: Sequence[ClientWork], at_once: int
    ) -> tuple[ClientsTraining, list[LoopResult | TrainingError]]:
        """From the task's adapter. What was made for a training is kept for the next one like it."""
        model, corrected = any_ready.model, task.corrections is not None
        key = (task.phase, model.spec, task.train, at_once, corrected)
        if key not in self._trainings:
            self._trainings = {other: each for other, each in self._trainings.items() if other[0] == task.phase}
            self._trainings[key] = ClientsTraining(model, at_once, task.train, any_ready.objective, corrected)
        model.load(task.adapter)
        return self._trainings[key], self._trainings[key].train(works)


def _update(
    task: FitTask, ready: _Ready, training: ClientsTraining, place: int, result: LoopResult | TrainingError
) -> ClientUpdate:
    """The client's answer. Raises the error that its training ended with."""
    if isinstance(result, TrainingError):
        raise result
    adapter = trained_adapter(lambda: Adapter(training.learned(place)))
    ready.status("done", None)
    return update_of(task, ready.client_id, adapter, result, ready.objective.examples, result.seconds)
