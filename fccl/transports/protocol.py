"""Protocol of every transport: it carries a server's requests to clients and their answers back.

A federation begins, asks round by round, and finishes:

    with transport:
        transport.begin(RunIdentity("run"), Listener(line=print))
        answers = list(transport.ask(task, client_ids))
        transport.finish("run", next_round, adapter)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from fccl.adapters.adapter import Adapter
from fccl.messages import ClientFailure, ClientUpdate, FitTask, Given, Request, Statement, StatusListener


@dataclass(frozen=True)
class RunIdentity:
    """The run that requests belong to, and when it was created: of two runs, the later created is newer."""

    run_id: str
    created: float = 0.0  # seconds since 1970 by the server's clock


@dataclass(frozen=True)
class Listener:
    """Hears what happens while a transport waits: clients' heartbeats, and lines that a person should read."""

    heartbeat: StatusListener = lambda status: None
    line: Callable[[str], None] = lambda line: None


SILENT = Listener()


class Transport(Protocol):
    """Carries requests to clients and their answers back. Holds its resources while it is entered."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def begin(self, run: RunIdentity, listen: Listener = SILENT) -> None:
        """Carry this run from now on: forget every other run, and tell `listen` what happens.

        May be called again, with another listener. A run that never begins is begun, in silence, by its first request.
        """
        ...

    def ask(self, request: Request[Given], client_ids: Sequence[int]) -> Iterator[Given | ClientFailure]:
        """One answer per client, in any order, of the type that the request names.

        A late, dead or lying client is a `ClientFailure`, never a hang.
        """
        ...

    def late(self, task: FitTask, client_ids: Sequence[int]) -> Iterator[ClientUpdate]:
        """Updates to an earlier task of this run that are there by now, at most one a client. Waits for nobody.

        `client_ids` had no update when `ask` was over. The updates are checked as those of `ask`.
        """
        ...

    def news(self, known: Mapping[int, float]) -> Sequence[Statement]:
        """Statements of clients that join or leave the run, each known to be the client's, and a word on every client
        whose key is revoked. `known` has the times of those that were taken: only newer ones are given.
        """
        ...

    def finish(self, run_id: str, next_round: int, adapter: Adapter) -> None:
        """Tell the clients that the run is done, and leave them its final adapter."""
        ...
