"""The simplest transport: the clients work one after the other in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from fccl.adapters.adapter import Adapter
from fccl.messages import ClientFailure, Given, Learner, LoadShard, Request, Service, Worker, status_now
from fccl.transports.protocol import SILENT, Listener, RunIdentity


class InProcessTransport:
    """One learner, and services for other kinds of request, do every client's work.

    Each client sees its own shard only, which is loaded when its turn comes.

        transport = InProcessTransport(learner, lambda client_id: load_shard(paths, client_id))
    """

    def __init__(self, learner: Learner, load_shard: LoadShard, services: Sequence[Service] = ()) -> None:
        self._worker, self._listen = Worker(learner, load_shard, services), SILENT

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def begin(self, run: RunIdentity, listen: Listener = SILENT) -> None:
        """Tell `listen` the clients' heartbeats from now on."""
        self._listen = listen

    def ask(self, request: Request[Given], client_ids: Sequence[int]) -> Iterator[Given | ClientFailure]:
        """Each client's answer, or its failure: one client's error never ends the request for the others."""
        for client_id in client_ids:
            answer = self._worker.answer(request, client_id, self._listen.heartbeat)
            if isinstance(answer, ClientFailure):  # nobody else would say so before the request is over
                self._listen.heartbeat(status_now(request, client_id, "failed"))
            yield answer

    def finish(self, run_id: str, next_round: int, adapter: Adapter) -> None:
        """Clients of this process need not be told that the run is done."""
