"""Clients at work: a learner answers `fit`, a service any other kind, and a worker puts them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from fccl import phases
from fccl.data.shards import ClientShard
from fccl.display.plain_text import printable
from fccl.errors import FcclError, OutputError, PhaseDeclined, SettingsError, StorageError, UpdateRejected
from fccl.messages.coding import Residuals, ResidualsInMemory, coded
from fccl.messages.fit import ClientUpdate, FitTask
from fccl.messages.requests import ClientFailure, Given, Reply, Request, ServedRequest
from fccl.records.run import ClientStatus
from fccl.specs import Phase

if TYPE_CHECKING:
    from fccl.privacy.secrets import Draws

StatusListener = Callable[[ClientStatus], None]
LoadShard = Callable[[int], ClientShard]
Asked = TypeVar("Asked")


class Learner(Protocol):
    """Turns a task and a shard into an update. Raises `FcclError` when it cannot, and `declined(task.phase)` in a phase
    in which this client takes no part."""

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        """Train on one shard from `task.adapter`; call `on_status` now and then with a heartbeat."""
        ...


@runtime_checkable
class SeveralAtOnce(Learner, Protocol):
    """A learner that also takes several clients at once, which may cost less than one after another."""

    def fit_together(
        self, task: FitTask, client_ids: Sequence[int], load_shard: LoadShard, on_status: StatusListener
    ) -> Sequence[ClientUpdate | ClientFailure]:
        """The answers of these clients, in their order: those of `fit` but for rounding. Raises as `attempt`."""
        ...


@runtime_checkable
class ByExample(Learner, Protocol):
    """A learner that also trains by DP-SGD, where the task's unit of privacy is the example."""

    def fit_by_example(
        self, task: FitTask, shard: ClientShard, on_status: StatusListener, draws: Callable[..., Draws]
    ) -> ClientUpdate:
        """An update that follows from sums of clipped gradients with noise, and from nothing else of the examples.

        Batches and noise come from `draws`, a stream for each purpose, and from no other randomness. Its figures of the
        training are withheld from the server. Raises as `fit`.
        """
        ...


def by_example(learner: Learner) -> ByExample:
    """The learner. Raises `SettingsError` unless it trains by DP-SGD."""
    if isinstance(learner, ByExample):
        return learner
    raise SettingsError(
        f"{type(learner).__name__} has no fit_by_example, which DP_UNIT=example needs",
        hint="leave DP_UNIT out: whole updates of any learner can be noised",
    )


class Service(Protocol):
    """Answers requests of one class at a client: `evaluate`, or a step of an own kind."""

    @property
    def asked(self) -> type[ServedRequest[Any]]:
        """The class of its requests: says kind and step, and reads them from their terms."""
        ...

    def answer(self, request: Any, shard: ClientShard, on_status: StatusListener) -> Reply:
        """One client's reply. Raises `FcclError` when it has none."""
        ...


@dataclass(frozen=True)
class Worker:
    """Does clients' work in this process: a learner, services for other kinds than `fit`, and the clients' shards.

    Its updates are coded as their tasks ask for; `residuals` remembers what that leaves out.
    """

    learner: Learner
    load_shard: LoadShard
    services: Sequence[Service] = ()
    residuals: Residuals = field(default_factory=ResidualsInMemory)

    def answer(self, request: Request[Given], client_id: int, on_status: StatusListener) -> Given | ClientFailure:
        """One client's answer; whatever goes wrong in its work is its failure, with the reason. Raises as `attempt`."""
        try:
            work: Callable[[Any, ClientShard, StatusListener], Any] = (
                self.fit if isinstance(request, FitTask) else self.service(request.kind, request.step).answer
            )
        except UpdateRejected as error:
            return ClientFailure(client_id, str(error))
        answer: Given | ClientFailure = attempt(work, request, client_id, self.load_shard, on_status)
        return answer

    def together(
        self, task: FitTask, client_ids: Sequence[int], on_status: StatusListener
    ) -> Sequence[ClientUpdate | ClientFailure]:
        """The answers of these clients, together where the learner takes several at once. Raises as `attempt`."""
        if isinstance(self.learner, SeveralAtOnce):
            found = self.learner.fit_together(task, client_ids, self.load_shard, on_status)
            return [self._sent(task, answer) for answer in found]
        return [self.answer(task, client_id, on_status) for client_id in client_ids]

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        """One client's update, coded as the task asks for. Raises as its learner does, and as `coded`."""
        return coded(task, self.learner.fit(task, shard, on_status), self.residuals)

    def _sent(self, task: FitTask, answer: ClientUpdate | ClientFailure) -> ClientUpdate | ClientFailure:
        if isinstance(answer, ClientFailure):
            return answer
        return guarded(answer.client_id, partial(coded, task, answer, self.residuals))

    def service(self, kind: str, step: int) -> Service:
        """The service for these requests. Raises `UpdateRejected` when there is none."""
        for service in self.services:
            if (service.asked.kind, service.asked.step) == (kind, step):
                return service
        raise UpdateRejected(f"this client has no answer to requests of kind {printable(kind)!r}, step {step}")


def attempt(
    work: Callable[[Asked, ClientShard, StatusListener], Given],
    request: Asked,
    client_id: int,
    load_shard: LoadShard,
    on_status: StatusListener,
) -> Given | ClientFailure:
    """One client's answer, or its failure: an error of its shard or its work does not end the process.

    Raises as `guarded`.
    """
    return guarded(client_id, lambda: work(request, load_shard(client_id), on_status))


def guarded(client_id: int, work: Callable[[], Given]) -> Given | ClientFailure:
    """The outcome of a client's work, or its failure with the reason.

    Raises `StorageError` and `OutputError`: the disk, and the reader of what is printed, are not the client's doing.
    What a user or the system sends to end the process ends it.
    """
    try:
        return work()
    except (StorageError, OutputError):
        raise
    except PhaseDeclined as error:
        return ClientFailure(client_id, _reason(error), declines=True)
    except Exception as error:  # of data, of a model, of the libraries: no list of classes would be complete
        return ClientFailure(client_id, _reason(error), error=error)


def declined(phase: Phase) -> PhaseDeclined:
    """The error by which a learner takes no part in a phase.

    >>> raise declined("va")
    Traceback (most recent call last):
    fccl.errors.PhaseDeclined: declines FedVA
    """
    return PhaseDeclined(f"declines {phases.of(phase).name}")


def _reason(error: Exception) -> str:
    """One line that can be shown.

    An error that is not ours comes with its class, for its text alone may say nothing ('1', 'lm_head').
    """
    text = str(error).strip()
    said = text if isinstance(error, FcclError) and text else f"{type(error).__name__}: {text}".removesuffix(": ")
    return printable(said.splitlines()[0])
