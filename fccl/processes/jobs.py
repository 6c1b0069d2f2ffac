"""`Jobs`: calls of one method that the workers of a pool share, each worker one at a time, until all have come back."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

from fccl.processes.pool import Died, Event, Pool, Raised, Said
from fccl.processes.sharing import Queues


class Lost:
    """The outcome of a job whose process has died, and the one that did it again too."""


LOST = Lost()


class Jobs:
    """The jobs of `queues`, as calls of `method` with `arguments(job)`.

    `hear` gets what a job says while it is done. Where a process dies, its job is done again in a new one, once;
    `again` hears of that.
    """

    def __init__(
        self,
        pool: Pool,
        method: str,
        queues: Queues,
        arguments: Callable[[int], tuple[Any, ...]],
        hear: Callable[[int, Any], None],
        again: Callable[[int], None] = lambda job: None,
    ) -> None:
        self._pool, self._method, self._arguments = pool, method, arguments
        self._hear, self._say_again = hear, again
        self._queues = {worker: list(queue) for worker, queue in queues.items()}
        self._repeated: set[int] = set()
        self._busy: dict[int, int] = {}  # worker -> the job that it does

    def outcomes(self) -> Generator[tuple[int, Any], None, None]:
        """Each job with what came of it, as it comes: the method's value, or `LOST`. Left early, this ends the pool's
        processes.

        Raises what the method raises, and `FederationError` when no process can be started.
        """
        try:
            for worker in self._queues:
                self._next(worker)
            while self._busy:
                for event in self._pool.events():
                    yield from self._outcome(event)
        finally:
            if self._busy:
                self._pool.close()

    def _outcome(self, event: Event) -> Iterator[tuple[int, Any]]:
        """The outcome in what a worker has to say, if there is one; the worker goes on before it is given."""
        if event.worker not in self._busy:  # it has died without anything to do
            return
        if isinstance(event, Said):
            self._hear(self._busy[event.worker], event.value)
            return
        job = self._busy.pop(event.worker)
        if isinstance(event, Raised):
            raise event.error
        if again := isinstance(event, Died) and job not in self._repeated:
            self._repeated.add(job)
            self._queues[event.worker].insert(0, job)
            self._say_again(job)
        self._next(event.worker)
        if not again:
            yield job, LOST if isinstance(event, Died) else event.value

    def _next(self, worker: int) -> None:
        if self._queues[worker]:
            self._busy[worker] = job = self._queues[worker].pop(0)
            self._pool.tell(worker, self._method, *self._arguments(job))
