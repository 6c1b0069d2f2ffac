"""Personal adapters: each client's own, made beside the federation's and kept in the client's private folder.

Ditto (Li et al. 2021): beside the round's update the client takes the same steps for its own adapter v, with the
gradient g(v) + λ (v - w), where w is the round's global adapter. λ = 0 is training alone, a large λ is w. Finetune:
when a phase is over, its global adapter is trained for one round more on the client's own examples.

No personal adapter travels. That of a round is on the disk before the round's answer is committed. A round that is done
again begins from the one before it, so a kill changes no byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fccl.adapters.adapter import Adapter, load_adapter
from fccl.data.shards import ClientShard
from fccl.display.plain_text import printable
from fccl.errors import AdapterError, FcclError, StorageError
from fccl.messages import (
    ClientFailure,
    ClientUpdate,
    FitTask,
    Learner,
    LoadShard,
    OwnTestTask,
    SeveralAtOnce,
    StatusListener,
    attempt,
    by_example,
)
from fccl.messages.coding import outlived
from fccl.paths import PersonalPaths, run_digits
from fccl.records.personal import PersonalRecord
from fccl.specs.personal import PersonalSpec
from fccl.storage.files import storage_errors, write_text
from fccl.storage.private import private_folder
from fccl.storage.temporary import sweep

if TYPE_CHECKING:
    from fccl.privacy.secrets import Draws

Asked = FitTask | OwnTestTask  # both say run, phase, round, model and training


@dataclass(frozen=True)
class PersonalAdapters:
    """The personal adapters of the clients of a process, each in its client's private folder."""

    folder: Callable[[int], PersonalPaths]

    def newest(self, asked: Asked, client_id: int, before: int) -> Adapter | None:
        """That of the client's newest round before this number, in the same run and phase; None where there is none.

        Raises `AdapterError` when the file is damaged.
        """
        paths, run = self.folder(client_id), run_digits(asked.run_id)
        earlier = [number for number in paths.rounds(run, asked.phase) if number < before]
        return load_adapter(paths.adapter(run, asked.phase, max(earlier))) if earlier else None

    def keep(self, asked: Asked, client_id: int, adapter: Adapter, spec: PersonalSpec) -> None:
        """Remember the client's adapter of this round, beside the one before it; those of other runs stay.

        Raises `StorageError`.
        """
        paths, run = self.folder(client_id), run_digits(asked.run_id)
        private_folder(paths.root)
        sweep(paths.root)  # what a killed process has left half-written
        adapter.save(paths.adapter(run, asked.phase, asked.round))
        record = PersonalRecord(
            run_id=asked.run_id,
            client_id=client_id,
            phase=asked.phase,
            round=asked.round,
            personal=spec,
            model=asked.model,
            adapter_sha256=adapter.sha256,
        )
        write_text(paths.record(run, asked.phase), record.model_dump_json(indent=1) + "\n")
        for number in outlived(paths.rounds(run, asked.phase), asked.round):
            with storage_errors(paths.root):
                paths.adapter(run, asked.phase, number).unlink(missing_ok=True)


@dataclass
class PersonalLearner:
    """A learner that also trains Ditto's adapter of each client, after the update that it answers with.

    What goes wrong with a personal adapter is said to `tell`, and changes no answer.
    """

    learner: Learner
    kept: PersonalAdapters
    tell: Callable[[str], None] = lambda line: None

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        """The learner's own update. Raises as it does, and `StorageError`."""
        update = self.learner.fit(task, shard, on_status)
        self._follow(task, shard)
        return update

    def fit_together(
        self, task: FitTask, client_ids: Sequence[int], load_shard: LoadShard, on_status: StatusListener
    ) -> Sequence[ClientUpdate | ClientFailure]:
        """The answers of these clients, in their order; then their own adapters, one after another."""
        if isinstance(self.learner, SeveralAtOnce):
            answers = self.learner.fit_together(task, client_ids, load_shard, on_status)
        else:
            answers = [attempt(self.learner.fit, task, client, load_shard, on_status) for client in client_ids]
        for answer in answers if task.train.personal else ():
            if isinstance(answer, ClientUpdate):
                self._follow(task, load_shard(answer.client_id))
        return answers

    def fit_by_example(
        self, task: FitTask, shard: ClientShard, on_status: StatusListener, draws: Callable[..., Draws]
    ) -> ClientUpdate:
        """The learner's own update by DP-SGD, which goes without personal adapters. Raises as `by_example` and as it
        does.
        """
        return by_example(self.learner).fit_by_example(task, shard, on_status, draws)

    def adapter_for(self, request: OwnTestTask, shard: ClientShard) -> Adapter | None:
        """The client's personal adapter of a phase that has ended; None where it has none, which `tell` hears of.

        Raises as the learner does, and `StorageError`.
        """
        spec = request.train.personal
        if spec is None:
            return None
        if spec.kind == "finetune":
            adapter = finetuned(self.learner, request, shard)
            self.kept.keep(request, shard.client_id, adapter, spec)
            return adapter
        found = self._newest(request, shard.client_id, request.round + 1)
        if found is None:
            self.tell(f"client {shard.client_id}: no personal adapter of this run and phase is here to be scored")
        return found

    def _follow(self, task: FitTask, shard: ClientShard) -> None:
        """One round of Ditto, where the task asks for it."""
        spec, client = task.train.personal, shard.client_id
        if spec is None or spec.kind != "ditto":
            return
        start = self._newest(task, client, task.round)
        if start is None:
            self.tell(f"client {client}: its personal adapter begins with the global one of round {task.round + 1}")
        try:
            adapter = ditto_round(self.learner, task, shard, start or task.adapter)
        except StorageError:
            raise
        except FcclError as error:
            self.tell(f"client {client}: its personal adapter stays as it was: {printable(str(error))}")
        else:
            self.kept.keep(task, client, adapter, spec)

    def _newest(self, asked: Asked, client: int, before: int) -> Adapter | None:
        try:
            return self.kept.newest(asked, client, before)
        except AdapterError as error:
            self.tell(f"client {client}: its personal adapter is not used: {printable(str(error))}")
            return None


def ditto_round(learner: Learner, task: FitTask, shard: ClientShard, start: Adapter) -> Adapter:
    """A client's own adapter after one round of Ditto from `start`, pulled to the task's adapter. Raises as `fit`."""
    pull = task.train.personal.pull if task.train.personal else 0.0
    train = task.train.model_copy(update={"prox_mu": pull, "personal": None})
    own = replace(task, adapter=start, centre=task.adapter, train=train, corrections=None, privacy=None, coded=None)
    return _learned(learner, own, shard)


def finetuned(learner: Learner, request: OwnTestTask, shard: ClientShard) -> Adapter:
    """A phase's global adapter, trained on a client's examples as in one round more, at the last round's rate.

    Raises as `fit`.
    """
    last = request.fit_task(len(request.rates) - 1, request.adapter)
    return _learned(learner, replace(last, round=request.round + 1), shard)


def _learned(learner: Learner, task: FitTask, shard: ClientShard) -> Adapter:
    return learner.fit(task, shard, lambda status: None).with_frozen(task.adapter).adapter.load()
