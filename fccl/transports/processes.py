"""Clients of this process side by side, in worker processes that end with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from fccl.adapters.adapter import Adapter
from fccl.messages import ClientFailure, ClientUpdate, FitTask, Given, OwnCorrection, Request, Statement
from fccl.processes.jobs import LOST, Jobs
from fccl.processes.pool import Pool
from fccl.processes.sharing import Queues, share_out
from fccl.specs import Phase
from fccl.transports.in_process import announced
from fccl.transports.protocol import SILENT, Listener, RunIdentity

DIED_TWICE = (
    "the process that it trained in ended twice; too little memory is the usual cause, and fewer CLIENT_PROCESSES need "
    "less"
)
AGAIN = "The process of client {} has ended: its work is done again in a new one."
Sizes = Callable[[Phase], Mapping[int, float]]


def alike(phase: Phase) -> Mapping[int, float]:
    """Sizes of clients of which nothing is known."""
    return {}


class ProcessesTransport:
    """Each client's work is done by a process of the pool, whose object is a `fccl.messages.Worker`.

    A client goes to the same process in every round of a phase, as long as the shares stay even. The process keeps what
    it has made of the client's examples. `sizes` has the clients' examples in a phase, `workers` the number of
    processes; both are asked with the first request, and `sizes` with every one.

    A process that dies is replaced, and its client's work is done again, once: with the same task it gives the same
    update. Dies that one too, it is the client's failure.

        with ProcessesTransport(Pool(make_worker, 2)) as transport:
            answers = list(transport.ask(task, [0, 1, 2]))
    """

    def __init__(self, pool: Pool, sizes: Sizes = alike, workers: Callable[[], int] | None = None) -> None:
        self._pool, self._sizes, self._workers, self._listen = pool, sizes, workers, SILENT
        self._homes: dict[tuple[Phase, int], int] = {}  # phase and client -> worker

    def __enter__(self) -> Self:
        self._pool.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.close()

    def begin(self, run: RunIdentity, listen: Listener = SILENT) -> None:
        """Tell `listen` the clients' heartbeats from now on."""
        self._listen = listen

    def ask(self, request: Request[Given], client_ids: Sequence[int]) -> Iterator[Given | ClientFailure]:
        """Each client's answer as it comes, or its failure. Left early, it ends the processes that are at work.

        Raises `StorageError` and `OutputError` as `fccl.messages.guarded`, and `FederationError` when no process can
        be started.
        """
        jobs = Jobs(
            self._pool,
            "answer",
            self._shared(request.phase, client_ids),
            lambda client_id: (_own(request, client_id), client_id),
            lambda client_id, status: self._listen.heartbeat(status),
            lambda client_id: self._listen.line(AGAIN.format(client_id)),
        )
        with closing(jobs.outcomes()) as outcomes:
            yield from announced(map(_answer, outcomes), request, self._listen)

    def late(self, task: FitTask, client_ids: Sequence[int]) -> Iterator[ClientUpdate]:
        """None: every client is waited for."""
        return iter(())

    def news(self, known: Mapping[int, float]) -> Sequence[Statement]:
        """None: the clients of this program are there from start to end."""
        return ()

    def finish(self, run_id: str, next_round: int, adapter: Adapter) -> None:
        """Clients of this program need not be told that the run is done."""

    def started(self) -> Pool:
        """The processes, ready for work of any kind."""
        if not self._pool.count:
            self._pool.start(self._workers() if self._workers else self._pool.most)
        return self._pool

    def _shared(self, phase: Phase, client_ids: Sequence[int]) -> Queues:
        workers, known = self.started().count, self._sizes(phase)
        sizes = {client: known.get(client, 1.0) for client in client_ids}
        homes = {client: self._homes[phase, client] for client in client_ids if (phase, client) in self._homes}
        queues = share_out(sizes, homes, workers)
        self._homes |= {(phase, client): worker for worker, queue in queues.items() for client in queue}
        return queues


def _own(request: Request[Given], client_id: int) -> Request[Given]:
    """The request as it is sent for one client: with its own correction alone."""
    if not isinstance(request, FitTask) or request.corrections is None:
        return request
    return replace(request, corrections=OwnCorrection(request.corrections.of(client_id)))


def _answer(outcome: tuple[int, Any]) -> Any:
    client_id, found = outcome
    return ClientFailure(client_id, DIED_TWICE) if found is LOST else found
