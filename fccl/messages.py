"""What travels between server and clients: a task down, an update or a failure up; and who does the work in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from fccl.adapter import Adapter
from fccl.data.shards import ClientShard
from fccl.errors import AdapterError, FcclError, StorageError, UpdateRejected
from fccl.records import ClientStatus, Contribution, TrainingReport
from fccl.specs import ModelSpec, Phase, TrainSpec, named_seed
from fccl.stored import StoredAdapter

StatusListener = Callable[[ClientStatus], None]


@dataclass(frozen=True, eq=False)
class FitTask:
    """One round's work, the same for every client. `reference` is set exactly in VA rounds: the last SFT global adapter.

    Under SCAFFOLD, and only then, `corrections` gives what a client adds to its gradients, and the update comes with a `control`.
    """

    run_id: str
    round: int
    phase: Phase
    adapter: Adapter
    reference: Adapter | None
    model: ModelSpec
    train: TrainSpec
    seed: int
    corrections: Callable[[int], Adapter] | None = None  # c - c_i of a client (`fccl.aggregation.scaffold`), of the adapter's form

    def __post_init__(self) -> None:
        if (self.phase == "va") != (self.reference is not None):
            raise ValueError(f"a {self.phase} task {'needs' if self.phase == 'va' else 'has no'} reference adapter")
        if self.reference is not None:
            self.adapter.require_same_form(self.reference)

    def client_seed(self, client_id: int) -> int:
        """The seed of one client's draws in this round."""
        return named_seed(self.seed, self.phase, self.round, client_id)


@dataclass(frozen=True, eq=False)
class ClientUpdate:
    """One client's answer to one task. `adapter.load()` is the adapter, in memory or still in a file: a thousand updates need not fit.

    `control` is the client's next c_i, where the task had corrections.
    """

    run_id: str
    client_id: int
    round: int
    phase: Phase
    adapter: Adapter | StoredAdapter
    contribution: Contribution
    report: TrainingReport
    control: Adapter | StoredAdapter | None = None

    def require_answers(self, task: FitTask) -> None:
        """Raises `UpdateRejected` unless this update answers `task`: same run, round and phase, an adapter of the same form, a control if asked."""
        for field in ("run_id", "round", "phase"):
            mine, asked = getattr(self, field), getattr(task, field)
            if mine != asked:
                raise UpdateRejected(f"the update is of {field} {mine!r}, the task of {asked!r}")
        if (self.control is None) != (task.corrections is None):
            raise UpdateRejected(f"the update comes {'without' if self.control is None else 'with'} a control variate")
        try:
            task.adapter.form.require(self.adapter.form)
            if self.control is not None:
                task.adapter.form.require(self.control.form)
        except AdapterError as error:
            raise UpdateRejected(str(error)) from error


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


def attempt(learner: Learner, task: FitTask, client_id: int, load_shard: Callable[[int], ClientShard], on_status: StatusListener) -> Answer:
    """One client's update, or its failure: whatever goes wrong in its shard or its training is its answer, not the end of the process.

    Raises `StorageError`: the disk is nobody's answer.
    """
    try:
        return learner.fit(task, load_shard(client_id), on_status)
    except StorageError:
        raise
    except FcclError as error:
        return ClientFailure(client_id, str(error))
    except (ArithmeticError, MemoryError, RuntimeError, ValueError) as error:  # torch's ways to fail in the middle of training
        return ClientFailure(client_id, f"{type(error).__name__}: {error}".splitlines()[0])
