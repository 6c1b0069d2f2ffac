"""The simplest transport: the clients work in this process, one after another or several at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fccl.adapters.adapter import Adapter
from fccl.messages import (
    ClientFailure,
    ClientUpdate,
    FitTask,
    Given,
    Learner,
    LoadShard,
    Request,
    Residuals,
    ResidualsInMemory,
    Service,
    Statement,
    Worker,
    status_now,
)
from fccl.records.run import ClientState
from fccl.transports.held import NothingHeld
from fccl.transports.protocol import SILENT, Listener, RunIdentity


class InProcessTransport(NothingHeld):
    """One learner, and services for other kinds of request, do every client's work.

    Each client sees its own shard only, which is loaded when its turn comes. `at_once` clients train together where
    the learner takes several: consecutive ones, so who trains with whom follows from who is asked. `residuals`
    remembers what a codec leaves out of their updates; without it, this object does.

        transport = InProcessTransport(learner, lambda client_id: load_shard(paths, client_id))
    """

    def __init__(
        self,
        learner: Learner,
        load_shard: LoadShard,
        services: Sequence[Service] = (),
        at_once: int = 1,
        residuals: Residuals | None = None,
    ) -> None:
        self._worker, self._listen = Worker(learner, load_shard, services, residuals or ResidualsInMemory()), SILENT
        self._at_once = at_once

    def begin(self, run: RunIdentity, listen: Listener = SILENT) -> None:
        """Tell `listen` the clients' heartbeats from now on."""
        self._listen = listen

    def ask(self, request: Request[Given], client_ids: Sequence[int]) -> Iterator[Given | ClientFailure]:
        """Each client's answer, or its failure: one client's error never ends the request for the others."""
        yield from announced(self._answers(request, client_ids), request, self._listen)

    def _answers(self, request: Request[Any], client_ids: Sequence[int]) -> Iterator[Any]:
        """The answers as they are there."""
        if isinstance(request, FitTask) and self._at_once > 1:
            for start in range(0, len(client_ids), self._at_once):
                together = client_ids[start : start + self._at_once]
                yield from self._worker.together(request, together, self._listen.heartbeat)
        else:
            for client_id in client_ids:
                yield self._worker.answer(request, client_id, self._listen.heartbeat)

    def late(self, task: FitTask, client_ids: Sequence[int]) -> Iterator[ClientUpdate]:
        """None: every client is waited for."""
        return iter(())

    def news(self, known: Mapping[int, float]) -> Sequence[Statement]:
        """None: the clients of this program are there from start to end."""
        return ()

    def finish(self, run_id: str, next_round: int, adapter: Adapter) -> None:
        """Clients of this process need not be told that the run is done."""


def announced(
    answers: Iterator[Given | ClientFailure], request: Request[Given], listen: Listener
) -> Iterator[Given | ClientFailure]:
    """The answers; a failure is a heartbeat too, for nobody else would say so before the request is over."""
    for answer in answers:
        if isinstance(answer, ClientFailure):
            state: ClientState = "declined" if answer.declines else "failed"
            listen.heartbeat(status_now(request, answer.client_id, state))
        yield answer
