"""Collects the answers to one request: waits for clients, refuses bad answers, gives up on the dead and the late."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from fccl.errors import ForeignAnswer, NotAFile, UpdateRejected
from fccl.messages import ClientFailure, Given
from fccl.specs import ExchangeSpec
from fccl.storage.reading import identity
from fccl.transports.exchange.begun import BegunReadings
from fccl.transports.exchange.liveness import Liveness
from fccl.transports.exchange.quarantine import Quarantine
from fccl.transports.exchange.watch import Watcher
from fccl.transports.protocol import Listener

_REFUSALS = 3  # so often is one client refused in an attempt; after that its files are passed over

Given_co = TypeVar("Given_co", covariant=True)


@dataclass
class Waiting:
    """A client without an answer. With a `reason` nobody need wait for it, though its answer may still come."""

    cause: Literal["", "said", "declined", "refused", "silent", "late", "gone"] = ""
    reason: str = ""
    refusals: int = 0
    refused: str = ""  # why, the last time
    flag: tuple[int, int, int] | None = None  # the identity of the file that committed the answer that was read

    def give_up(self, cause: Literal["said", "declined", "refused", "silent", "late", "gone"], reason: str) -> None:
        """Wait no longer, for this reason."""
        self.cause, self.reason = cause, reason

    def failure(self, client_id: int) -> ClientFailure:
        """The failure that stands in the place of its answer."""
        return ClientFailure(client_id, self.reason, self.cause == "declined")


class AnswerSource(Protocol[Given_co]):
    """The answers to one open request, as they lie in the directory."""

    @property
    def run_id(self) -> str: ...

    @property
    def round(self) -> int: ...

    def flag(self, client_id: int) -> Path:
        """The file that commits a client's answer."""
        ...

    def files(self, client_id: int) -> tuple[Path, ...]:
        """All files that an answer may have, in the order in which they are taken away."""
        ...

    def read(self, client_id: int) -> Given_co | ClientFailure:
        """A committed answer, or the failure that the client reports. Raises `UpdateRejected`, and `ForeignAnswer` when
        it is not the client's answer to this request."""
        ...

    def uphold(self) -> None:
        """See that the request is still there as it was published."""
        ...


@dataclass(frozen=True)
class Collector:
    """Waits for the answers of one request's clients."""

    spec: ExchangeSpec
    quarantine: Quarantine
    liveness: Liveness
    begun: BegunReadings
    listen: Listener
    watching: Watcher
    require_here: Callable[[], None]
    trouble: Callable[[int], str] = lambda client_id: ""  # why a client cannot be reached, as far as the caller knows
    gone: Callable[[str, int], str] = lambda run_id, client_id: ""  # why a client of a run is no member any more

    def start(self, source: AnswerSource[Given], client_ids: Sequence[int]) -> dict[int, Waiting]:
        """The clients that are asked. An answer that ended an earlier process is refused unread."""
        return {client_id: self._asked(source, client_id) for client_id in client_ids}

    def attempt(self, source: AnswerSource[Given], waiting: dict[int, Waiting]) -> Iterator[Given]:
        """Yield answers, and take their clients off `waiting`, until nobody is left whom it is worth to wait for."""
        self.liveness.forgive()
        deadline = time.monotonic() + self.spec.timeout_s
        while True:
            self.require_here()
            for client_id in list(waiting):
                if (answer := self._look(source, client_id, waiting[client_id])) is not None:
                    del waiting[client_id]
                    yield answer
            left = deadline - time.monotonic()
            if left <= 0:
                self._time_is_up(waiting)
            if all(client.cause for client in waiting.values()):
                return
            source.uphold()
            self.watching.wait(left)

    def there_now(self, source: AnswerSource[Given], client_ids: Sequence[int]) -> Iterator[Given]:
        """The good answers of these clients that are there now. Waits for nobody."""
        for client_id, client in self.start(source, client_ids).items():
            if identity(source.flag(client_id)) is not None:
                answer = self._look(source, client_id, client)
                if answer is not None:
                    yield answer

    def _asked(self, source: AnswerSource[Given], client_id: int) -> Waiting:
        path, client = source.flag(client_id), Waiting()
        ended = self.begun.unended(path.name)
        if ended and self._flag(source, client_id, path) == ended[-1]:
            self._refuse(source, client_id, client, ForeignAnswer("the server ended while it read this answer"))
        client.refusals = len(ended)
        return client

    def _look(self, source: AnswerSource[Given], client_id: int, client: Waiting) -> Given | None:
        """A client's answer, if a good one is there.

        A bad one is refused; a silence that is too long becomes a reason.
        """
        self.liveness.look(client_id)
        path = source.flag(client_id)
        flag = self._flag(source, client_id, path)
        if flag is None or flag == client.flag or client.refusals >= _REFUSALS:
            self._judge_silence(source, client_id, client)
            return None
        client.flag = flag
        try:
            with self.begun.reading(path.name, flag):
                answer = source.read(client_id)
        except UpdateRejected as error:
            self._refuse(source, client_id, client, error)
            return None
        if isinstance(answer, ClientFailure):
            client.give_up("declined" if answer.declines else "said", answer.reason)
            return None
        return answer

    def _flag(self, source: AnswerSource[Given], client_id: int, path: Path) -> tuple[int, int, int] | None:
        """The identity of the file that commits an answer, at its path; what only has its name goes."""
        found = identity(path)
        if found is None:
            self.quarantine.clear_for_file(path, source.run_id, source.round, client_id)
        return found

    def _refuse(self, source: AnswerSource[Given], client_id: int, client: Waiting, error: UpdateRejected) -> None:
        self.quarantine.refuse(source.files(client_id), str(error), source.run_id, source.round, client_id)
        self.listen.line(f"client {client_id}: refused: {error}")
        client.refusals, client.refused = client.refusals + 1, f"refused: {error}"
        if not isinstance(error, ForeignAnswer | NotAFile):
            client.give_up("refused", client.refused)

    def _judge_silence(self, source: AnswerSource[Given], client_id: int, client: Waiting) -> None:
        if not client.cause and (reason := self.gone(source.run_id, client_id)):
            client.give_up("gone", reason)
            self.listen.line(f"client {client_id}: {reason}")
        dead = self.liveness.is_dead(client_id) and client_id not in self.spec.originals  # those write no heartbeat
        if dead and not client.cause:
            last_word = self.liveness.last_word(client_id)
            client.give_up("silent", f"no heartbeat for {self.spec.stale_s:g} s; {last_word}")
            self.listen.line(f"client {client_id}: {client.reason}")
        elif not client.cause and (trouble := self.trouble(client_id)):
            client.give_up("silent", trouble)
            self.listen.line(f"client {client_id}: {trouble}")
        elif not dead and client.cause == "silent" and not self.trouble(client_id):
            client.cause = ""
            self.listen.line(f"client {client_id}: is back")

    def _time_is_up(self, waiting: Mapping[int, Waiting]) -> None:
        for client_id, client in waiting.items():
            if not client.cause:
                heard = f"; {client.refused}" if client.refused else ""
                last_word = self.liveness.last_word(client_id)
                client.give_up("late", f"no answer within {self.spec.timeout_s:g} s; {last_word}{heard}")
