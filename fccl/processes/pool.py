"""`Pool`: worker processes that hold an object each and call its methods when they are told.

    with Pool(make, 2) as pool:
        pool.tell(0, "fit", task)      # made.fit(task, say) in the first process
        for event in pool.events():    # Said, Returned, Raised or Died
            ...

`make` and all that is told and answered are pickled. They come from this program and go to it over lines that no other
process can reach. The processes are plain children: unlike those of `multiprocessing` they do not run the user's script
once more, so a script needs no `if __name__ == "__main__"`. A worker ends when its line is closed: by `close`, or
because this process has ended, in whatever way. Ctrl-C does not reach it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Any, Self

from fccl.processes.child import NOTHING, RETURNED, SAID
from fccl.processes.launch import FORKS, Launch


@dataclass(frozen=True)
class Said:
    """A worker's word in the middle of its work: what the method gave to its last argument."""

    worker: int
    value: Any


@dataclass(frozen=True)
class Returned:
    """The end of a worker's work."""

    worker: int
    value: Any


@dataclass(frozen=True)
class Raised:
    """The error that a worker's work ended with."""

    worker: int
    error: Exception


@dataclass(frozen=True)
class Died:
    """A worker that has ended, in its work or without any; the next `tell` starts another in its place."""

    worker: int


Event = Said | Returned | Raised | Died


class Pool:
    """At most `most` workers, numbered from 0. They begin to load when the pool is entered, and are there for work once
    `start` says how many of them shall be. `begun` is a child with enough lines that loads already. `environments` are
    added to this process's own, one for each worker; each is then begun by itself, and nothing is forked.
    """

    def __init__(
        self,
        make: Callable[[], object],
        most: int,
        begun: Launch | None = None,
        environments: Sequence[Mapping[str, str]] = (),
    ) -> None:
        self.most = most
        self._make, self._count, self._begun, self._environments = make, 0, begun, environments
        self._launches: list[Launch] = []
        self._lines: dict[int, Connection] = {}

    def __enter__(self) -> Self:
        begun, self._begun = self._begun, None
        for launch in [begun] if begun else self._launched():
            self._launches.append(launch)
            launch.make(self._make)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def count(self) -> int:
        """The number of workers; 0 before `start`."""
        return self._count

    def start(self, count: int) -> None:
        """Let there be so many workers, and no more."""
        self._count = min(count, self.most)
        for launch in self._launches:
            lines = launch.go(self._count - len(self._lines))
            self._lines |= dict(enumerate(lines, start=len(self._lines)))

    def ready(self) -> None:
        """Wait until every worker has made its object. One that dies meanwhile is replaced once it is told something.

        No worker may have work. Raises `FederationError` as `tell` does.
        """
        for worker in range(self._count):
            self.tell(worker, NOTHING)
        left = set(range(self._count))
        while left:
            left -= {event.worker for event in self.events()}

    def tell(self, worker: int, method: str, *arguments: Any) -> None:
        """Let a worker that has nothing to do call this method of its object; `events` has what comes of it.

        Raises `FederationError` when a worker that has died cannot be replaced.
        """
        if worker not in self._lines:
            self._launches.append(launch := self._alone(worker))
            launch.make(self._make)
            self._lines[worker] = launch.go(1)[0]
        with suppress(OSError):  # it has died, and `events` says so
            self._lines[worker].send_bytes(pickle.dumps((method, arguments)))

    def events(self) -> Iterator[Event]:
        """The next words of workers: waits until there are some, and not at all where no worker is left."""
        numbers = {line: worker for worker, line in self._lines.items()}
        for line in wait(list(numbers)) if numbers else ():
            if isinstance(line, Connection):
                yield self._event(numbers[line], line)

    def close(self) -> None:
        """End all workers, whatever they are doing. The pool may be told more afterwards, and begins anew."""
        for line in self._lines.values():
            line.close()
        for launch in self._launches:
            launch.end()
        self._lines.clear()
        self._launches.clear()

    def _launched(self) -> list[Launch]:
        if FORKS and not self._environments:
            return [Launch(self.most)]
        return [self._alone(worker) for worker in range(self.most)]

    def _alone(self, worker: int) -> Launch:
        """A child that becomes this worker alone."""
        return Launch(1, environment=self._environments[worker] if self._environments else None)

    def _event(self, worker: int, line: Connection) -> Event:
        try:
            kind, value = pickle.loads(line.recv_bytes())
        except (EOFError, OSError):
            self._lines.pop(worker).close()
            return Died(worker)
        if kind == SAID:
            return Said(worker, value)
        return Returned(worker, value) if kind == RETURNED else Raised(worker, value)
