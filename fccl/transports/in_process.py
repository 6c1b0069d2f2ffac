"""The simplest transport: the clients train one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from fccl.data.shards import ClientShard
from fccl.messages import Answer, ClientFailure, FitTask, Learner, StatusListener, attempt


class InProcessTransport:
    """One learner does every client's work; each sees its own shard only, loaded when its turn comes."""

    def __init__(
        self,
        learner: Learner,
        load_shard: Callable[[int], ClientShard],
        on_status: StatusListener = lambda status: None,
    ) -> None:
        self._learner, self._load_shard, self._on_status = learner, load_shard, on_status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def fit(self, task: FitTask, client_ids: Sequence[int]) -> Iterator[Answer]:
        """Each client's update, or its failure: one client's error never ends the round for the others."""
        for client_id in client_ids:
            answer = attempt(self._learner, task, client_id, self._load_shard, self._on_status)
            if isinstance(answer, ClientFailure):
                self._on_status(
                    task.status(client_id, "failed")
                )  # nobody else would say so before the round is complete
            yield answer
