"""Messages between server and clients: a task down, an update or a failure up; and who does the work in between."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from fccl import phases
from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.ranks import WithFrozen, leading, of_rank, rank_of
from fccl.adapters.source import AdapterSource
from fccl.data.shards import ClientShard
from fccl.errors import AdapterError, FcclError, OutputError, StorageError, UpdateRejected
from fccl.plain_text import printable
from fccl.records.run import ClientState, ClientStatus, Contribution, TrainingReport
from fccl.specs import ModelSpec, Phase, TrainSpec, named_seed

StatusListener = Callable[[ClientStatus], None]


@dataclass(frozen=True, eq=False)
class FitTask:
    """One round's work, the same for every client. `reference` is set exactly in VA rounds: the last SFT global
    adapter.

    Under SCAFFOLD, and only then, `corrections` gives what a client adds to its gradients, and the update comes with a
    `control`.

    >>> from fccl.testing.toy import MODEL, TRAIN, adapter
    >>> task = FitTask("run", 0, "sft", adapter(1.0, 2.0, 3.0), None, MODEL, TRAIN, seed=7)
    >>> task.adapter.tensors["w"].tolist(), task.client_seed(0) != task.client_seed(1)
    ([1.0, 2.0, 3.0], True)
    """

    run_id: str
    round: int
    phase: Phase
    adapter: Adapter
    reference: Adapter | None
    model: ModelSpec
    train: TrainSpec
    seed: int
    corrections: Callable[[int], Adapter] | None = (
        None  # c - c_i of a client (`fccl.aggregation.scaffold`), of the adapter's form
    )

    def __post_init__(self) -> None:
        needs = phases.of(self.phase).takes_reference
        if needs != (self.reference is not None):
            raise ValueError(f"a {self.phase} task {'needs' if needs else 'has no'} reference adapter")
        if self.reference is not None:
            of_rank(self.adapter.form, rank_of(self.reference.form)).require(self.reference.form)

    @cached_property
    def trained(self) -> Adapter:
        """The part of the adapter that a client trains, unless its own rank is lower; the rest stays frozen."""
        return leading(self.adapter, self.model.lora_r)

    def require_rank(self, rank: int) -> None:
        """Raises `AdapterError` when no client may train so many directions."""
        most = self.model.lora_r
        if rank > most:
            raise AdapterError(f"rank {rank} is more than LORA_R={most}")
        if rank < most and not self.train.lower_ranks:
            raise AdapterError(
                f"rank {rank} is less than LORA_R={most}, which only LORA_AGGREGATION=svd and exact allow"
            )

    def require_update_form(self, form: Form) -> None:
        """Raises `AdapterError` unless an update may have these names and shapes: those of `trained`, or of a lower
        rank where that is allowed.
        """
        rank = rank_of(form)
        if rank not in (0, rank_of(self.trained.form)):
            self.require_rank(rank)
            of_rank(self.trained.form, rank).require(form)
        else:
            self.trained.form.require(form)

    def status(self, client_id: int, state: ClientState) -> ClientStatus:
        """A heartbeat of one client of this process in this round, now."""
        return ClientStatus(
            client_id=client_id,
            state=state,
            run_id=self.run_id,
            round=self.round,
            phase=self.phase,
            pid=os.getpid(),
            host=socket.gethostname(),
            time=time.time(),
        )

    def client_seed(self, client_id: int) -> int:
        """The seed of one client's draws in this round."""
        return named_seed(self.seed, self.phase, self.round, client_id)


@dataclass(frozen=True, eq=False)
class ClientUpdate:
    """One client's answer to one task. `adapter.load()` is the adapter, in memory or still in a file: a thousand
    updates need not fit.

    `control` is the client's next c_i, where the task had corrections. The norms are the server's own, measured once,
    when the update comes in (`fccl.federation.bounds`).

    >>> from fccl.testing.toy import MODEL, TRAIN, ToyLearner, adapter, shard
    >>> task = FitTask("run", 0, "sft", adapter(1.0, 2.0, 3.0), None, MODEL, TRAIN, seed=7)
    >>> update = ToyLearner().fit(task, shard(2), lambda status: None)
    >>> update.client_id, update.contribution.num_samples, update.adapter.load().form == task.adapter.form
    (2, 3, True)
    """

    run_id: str
    client_id: int
    round: int
    phase: Phase
    adapter: AdapterSource
    contribution: Contribution
    report: TrainingReport
    control: AdapterSource | None = None
    change_norm: float | None = None  # L2 norm of what it changed of the round's adapter
    control_norm: float | None = None  # and of the control variate

    def require_answers(self, task: FitTask) -> None:
        """Raises `UpdateRejected` unless this update answers `task`: same run, round and phase, a form that it may
        have, a control if asked.
        """
        for field in ("run_id", "round", "phase"):
            mine, asked = getattr(self, field), getattr(task, field)
            if mine != asked:
                raise UpdateRejected(f"the update is of {field} {mine!r}, the task of {asked!r}")
        if (self.control is None) != (task.corrections is None):
            raise UpdateRejected(f"the update comes {'without' if self.control is None else 'with'} a control variate")
        try:
            task.require_update_form(self.adapter.form)
            if self.control is not None:
                task.adapter.form.require(self.control.form)
        except AdapterError as error:
            raise UpdateRejected(str(error)) from error

    def with_frozen(self, before: Adapter) -> ClientUpdate:
        """The same update with the directions of `before` that stayed frozen; itself when it trained all of them."""
        return self if self.adapter.form == before.form else replace(self, adapter=WithFrozen(self.adapter, before))

    def change_from(self, before: Adapter) -> float:
        """The L2 norm of what it changed of `before`, the round's adapter.

        Loads the update only where that was not measured before.
        """
        return self.adapter.load().distance(before) if self.change_norm is None else self.change_norm


@dataclass(frozen=True)
class ClientFailure:
    """A client that has no usable update this round, and why."""

    client_id: int
    reason: str


Answer = ClientUpdate | ClientFailure


class Learner(Protocol):
    """Turns a task and a shard into an update. Raises `FcclError` when it cannot."""

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        """Train on one shard from `task.adapter`; call `on_status` now and then with a heartbeat."""
        ...


def attempt(
    learner: Learner, task: FitTask, client_id: int, load_shard: Callable[[int], ClientShard], on_status: StatusListener
) -> Answer:
    """One client's update, or its failure: whatever goes wrong in its shard or its training is its answer, not the end
    of the process.

    Raises `StorageError` and `OutputError`: the disk, and who reads what is printed, are nobody's answer. What a user
    or the system sends to end the process ends it.
    """
    try:
        return learner.fit(task, load_shard(client_id), on_status)
    except (StorageError, OutputError):
        raise
    except Exception as error:  # of data, of a model, of the libraries: no list of classes would be complete
        return ClientFailure(client_id, _reason(error))


def _reason(error: Exception) -> str:
    """One line that can be shown.

    An error that is not ours comes with its class, for its text alone may say nothing ('1', 'lm_head').
    """
    text = str(error).strip()
    said = text if isinstance(error, FcclError) and text else f"{type(error).__name__}: {text}".removesuffix(": ")
    return printable(said.splitlines()[0])
