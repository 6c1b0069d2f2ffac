"""The simplest transport: the clients train one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from fccl.adapters.adapter import Adapter
from fccl.data.shards import ClientShard
from fccl.messages import Answer, ClientFailure, FitTask, Learner, attempt
from fccl.transports.protocol import SILENT, Listener, RunIdentity


class InProcessTransport:
    """One learner does every client's work; each sees its own shard only, loaded when its turn comes."""

    def __init__(self, learner: Learner, load_shard: Callable[[int], ClientShard]) -> None:
        self._learner, self._load_shard, self._listen = learner, load_shard, SILENT

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def begin(self, run: RunIdentity, listen: Listener = SILENT) -> None:
        """Tell `listen` the clients' heartbeats from now on."""
        self._listen = listen

    def ask(self, request: FitTask, client_ids: Sequence[int]) -> Iterator[Answer]:
        """Each client's update, or its failure: one client's error never ends the round for the others."""
        for client_id in client_ids:
            answer = attempt(self._learner, request, client_id, self._load_shard, self._listen.heartbeat)
            if isinstance(answer, ClientFailure):
                # nobody else would say so before the round is complete
                self._listen.heartbeat(request.status(client_id, "failed"))
            yield answer

    def finish(self, run_id: str, next_round: int, adapter: Adapter) -> None:
        """Clients of this process need not be told that the run is done."""
