"""The exchange directory: the clients are other processes, in containers or on machines that share a file system.

`docs/protocol.md` says who writes which file when. This is the server's side of it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import leading
from fccl.adapters.stored import AdapterReader, StoredAdapter
from fccl.errors import FederationError, ForeignAnswer, NotAFile, UpdateRejected
from fccl.keys import Keys
from fccl.messages import Answer, ClientFailure, ClientUpdate, FitTask
from fccl.paths import ExchangePaths
from fccl.plain_text import printable
from fccl.specs import ExchangeSpec
from fccl.storage.files import storage_errors
from fccl.storage.locks import exclusive, in_sight
from fccl.storage.reading import identity, is_own_folder, is_there
from fccl.storage.temporary import sweep
from fccl.transports.exchange.answers import AnswerReader, GoodAnswer, GoodFile
from fccl.transports.exchange.begun import BegunReadings
from fccl.transports.exchange.liveness import Liveness
from fccl.transports.exchange.quarantine import Quarantine
from fccl.transports.exchange.rounds import Rounds
from fccl.transports.exchange.watch import Watcher, watcher
from fccl.transports.exchange.wire import FailureFile, FitWork, TaskFile
from fccl.transports.protocol import SILENT, Listener, RunIdentity

_REFUSALS = 3  # so often is one client refused in an attempt; after that its files are passed over


@dataclass
class _Waiting:
    """A selected client without an update. With a `reason` the round need not wait for it, though it may still come."""

    cause: Literal["", "said", "refused", "silent", "late"] = ""
    reason: str = ""
    refusals: int = 0
    refused: str = ""  # why, the last time
    flag: tuple[int, int, int] | None = None  # the identity of the flag whose answer was read

    def give_up(self, cause: Literal["said", "refused", "silent", "late"], reason: str) -> None:
        self.cause, self.reason = cause, reason


class ExchangeTransport:
    """Holds the directory from `__enter__` to `__exit__`, so that no other orchestrator can.

    `received` is a folder that only this process writes: an update is kept there as it was when it was checked, so
    nobody can change it before it is used.
    """

    def __init__(self, paths: ExchangePaths, spec: ExchangeSpec, received: Path, keys: Keys | None = None) -> None:
        self.quarantine = Quarantine(paths)
        self._paths, self._spec, self._received, self._keys = paths, spec, received, keys
        self._liveness = Liveness(paths, spec.stale_s, lambda status: self._listen.heartbeat(status))
        self._listen = SILENT
        self._begun = BegunReadings(received, paths)
        self._held = ExitStack()
        self._watcher: Watcher | None = None
        self._require_here: Callable[[], None] = lambda: None
        self._rounds: Rounds | None = None
        self._readers: dict[int, AdapterReader] = {}

    def __enter__(self) -> Self:
        with ExitStack() as held:
            self.quarantine.clear_for_file(self._paths.server_lock)
            held.enter_context(exclusive(self._paths.server_lock, "another orchestrator"))
            self._require_here = held.enter_context(in_sight(self._paths.root))
            sweep(self._paths.root, self._paths.is_half_written)
            sweep(self._paths.rejected)
            self._watcher = held.enter_context(watcher(self._paths.root, self._spec.watch))
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watcher = None
        self._held.close()

    def require_here(self) -> None:
        """Raises `StorageError` when the directory is gone, or another has its name: then nobody reads what is
        written."""
        self._require_here()

    def begin(self, run: RunIdentity, listen: Listener = SILENT) -> None:
        """Take the rounds of every other run away: until this one opens its first, clients would take an earlier run's
        end for its own.
        """
        self._listen = listen
        if self._rounds is None or (self._rounds.run_id, self._rounds.run_created) != (run.run_id, run.created):
            self._begin(run)

    def open(self, task: FitTask, client_ids: Sequence[int]) -> TaskFile:
        """Publish a round without waiting for answers; one that is open already stays as it is."""
        return self._publish(self._rounds_of(task.run_id), task, client_ids)

    def ask(self, request: FitTask, client_ids: Sequence[int]) -> Iterator[Answer]:
        """Open the round and yield each client's update as it comes, then a failure for every client that has none.

        With fewer updates than the quorum the clients that failed are asked again, `retries` times. Raises
        `StorageError`.
        """
        task, watching, rounds = request, self._watching(), self._rounds_of(request.run_id)
        publish = partial(self._publish, rounds, task, client_ids)
        opened = publish()
        rounds.tidy(opened)
        public, of_rank = self._keys.public if self._keys else None, partial(self._adapters, task)
        published = rounds.opened(task.round)
        reader = AnswerReader(
            self._paths, opened, of_rank(task.model.lora_r), of_rank, public, published, self._spec.originals
        )
        self._empty_received(task.round)
        waiting = {client_id: self._asked(opened, client_id) for client_id in client_ids}
        for retry in range(self._spec.retries + 1):
            if retry:
                self._ask_again(rounds, waiting, task.round, len(client_ids) - len(waiting), retry)
            yield from self._attempt(reader, watching, waiting, lambda: rounds.stands() or publish())
            if len(client_ids) - len(waiting) >= self._spec.quorum:
                break
        yield from (ClientFailure(client_id, client.reason) for client_id, client in sorted(waiting.items()))

    def finish(self, run_id: str, next_round: int, adapter: Adapter) -> None:
        """Tell the clients that the run is done, and leave them the final adapter.

        Nobody may need an update any more.
        """
        self._require_here()
        rounds = self._rounds_of(run_id)
        rounds.tidy(rounds.open(next_round, "done", adapter, None))
        self._empty_received()

    def _rounds_of(self, run_id: str) -> Rounds:
        """The rounds of this run, which begins with them when nobody has begun it."""
        if self._rounds is None or self._rounds.run_id != run_id:
            return self._begin(RunIdentity(run_id))
        return self._rounds

    def _begin(self, run: RunIdentity) -> Rounds:
        self._rounds = Rounds(
            paths=self._paths,
            run_id=run.run_id,
            run_created=run.created,
            num_clients=self._spec.num_clients,
            keep_rounds=self._spec.keep_rounds,
            keys=self._keys,
            quarantine=self.quarantine,
            originals=bool(self._spec.originals),
        )
        self._rounds.clear_other_runs()
        return self._rounds

    def _watching(self) -> Watcher:
        if self._watcher is None:
            raise FederationError("the exchange directory is not held", hint="use the transport in a with statement")
        return self._watcher

    def _adapters(self, task: FitTask, rank: int) -> AdapterReader:
        """The readers of updates of this rank. Raises `AdapterError` when the task allows none."""
        task.require_rank(rank)
        if rank not in self._readers or self._readers[rank].form != leading(task.trained, rank).form:
            self._readers[rank] = AdapterReader.like(leading(task.trained, rank))
        return self._readers[rank]

    def _publish(self, rounds: Rounds, task: FitTask, client_ids: Sequence[int]) -> TaskFile:
        return rounds.open(task.round, task.phase, task.adapter, self._work(rounds, task, client_ids))

    def _work(self, rounds: Rounds, task: FitTask, client_ids: Sequence[int]) -> FitWork:
        told, corrections = task.corrections, None
        if told is not None:
            corrections = tuple(rounds.keep(told(client_id), self._paths.correction) for client_id in client_ids)
        return FitWork(
            clients=tuple(client_ids),
            reference=None if task.reference is None else rounds.keep(task.reference, self._paths.reference),
            model=task.model,
            train=task.train,
            seed=task.seed,
            corrections=corrections,
        )

    def _asked(self, task: TaskFile, client_id: int) -> _Waiting:
        """A client at the start of a round, or of this process in it.

        An answer that ended an earlier process is refused unread.
        """
        ended = self._begun.unended(client_id, task.round)
        client = _Waiting()
        if ended and self._flag(task, client_id) == ended[-1]:
            self._refuse(task, client_id, client, ForeignAnswer("the server ended while it read this answer"))
        client.refusals = len(ended)
        return client

    def _attempt(
        self, reader: AnswerReader, watching: Watcher, waiting: dict[int, _Waiting], uphold: Callable[[], object]
    ) -> Iterator[ClientUpdate]:
        """Yield updates, and take their clients off `waiting`, until nobody is left whom it is worth to wait for.

        `uphold` mends the open round.
        """
        self._liveness.forgive()
        deadline = time.monotonic() + self._spec.timeout_s
        while True:
            self._require_here()
            for client_id in list(waiting):
                if (update := self._look(reader, client_id, waiting[client_id])) is not None:
                    del waiting[client_id]
                    yield update
            left = deadline - time.monotonic()
            if left <= 0:
                self._time_is_up(waiting)
            if all(client.cause for client in waiting.values()):
                return
            uphold()
            watching.wait(left)

    def _look(self, reader: AnswerReader, client_id: int, client: _Waiting) -> ClientUpdate | None:
        """A client's update, if a good one is there.

        A bad one is refused; a silence that is too long becomes a reason.
        """
        self._liveness.look(client_id)
        flag = self._flag(reader.task, client_id)
        if flag is None or flag == client.flag or client.refusals >= _REFUSALS:
            self._judge_silence(client_id, client)
            return None
        client.flag = flag
        try:
            with self._begun.reading(client_id, reader.task.round, flag):
                answer = reader.read(client_id)
        except UpdateRejected as error:
            self._refuse(reader.task, client_id, client, error)
            return None
        if isinstance(answer, FailureFile):
            client.give_up("said", printable(answer.error))
            return None
        return self._receive(reader, client_id, answer)

    def _flag(self, task: TaskFile, client_id: int) -> tuple[int, int, int] | None:
        """The identity of a client's flag; what only has its name goes."""
        path = self._paths.flag(client_id, task.round)
        found = identity(path)
        if found is None:
            self.quarantine.clear_for_file(path, task.run_id, task.round, client_id)
        return found

    def _receive(self, reader: AnswerReader, client_id: int, answer: GoodAnswer) -> ClientUpdate:
        task = reader.task
        return ClientUpdate(
            run_id=task.run_id,
            client_id=client_id,
            round=task.round,
            phase="sft" if task.phase == "sft" else "va",
            adapter=self._kept(self._paths.update(client_id, task.round), answer.update),
            contribution=answer.contribution,
            report=answer.report,
            control=None
            if answer.control is None
            else self._kept(self._paths.control(client_id, task.round), answer.control),
        )

    def _kept(self, sent: Path, file: GoodFile) -> StoredAdapter:
        path = self._received / sent.name
        with storage_errors(path):
            path.write_bytes(file.content)  # not flushed to the disk: after a crash it is received again
        return StoredAdapter(path, file.sha256, file.reader)

    def _refuse(self, task: TaskFile, client_id: int, client: _Waiting, error: UpdateRejected) -> None:
        self.quarantine.refuse(
            self._paths.taken_away(client_id, task.round), str(error), task.run_id, task.round, client_id
        )
        self._listen.line(f"client {client_id}: refused: {error}")
        client.refusals, client.refused = client.refusals + 1, f"refused: {error}"
        if not isinstance(error, ForeignAnswer | NotAFile):
            client.give_up("refused", client.refused)

    def _judge_silence(self, client_id: int, client: _Waiting) -> None:
        dead = self._liveness.is_dead(client_id) and client_id not in self._spec.originals  # those write no heartbeat
        if dead and not client.cause:
            client.give_up(
                "silent", f"no heartbeat for {self._spec.stale_s:g} s; {self._liveness.last_word(client_id)}"
            )
            self._listen.line(f"client {client_id}: {client.reason}")
        elif not dead and client.cause == "silent":
            client.cause = ""
            self._listen.line(f"client {client_id}: is back")

    def _time_is_up(self, waiting: Mapping[int, _Waiting]) -> None:
        for client_id, client in waiting.items():
            if not client.cause:
                heard = f"; {client.refused}" if client.refused else ""
                client.give_up(
                    "late", f"no answer within {self._spec.timeout_s:g} s; {self._liveness.last_word(client_id)}{heard}"
                )

    def _ask_again(
        self, rounds: Rounds, waiting: dict[int, _Waiting], round_number: int, good: int, retry: int
    ) -> None:
        missing = (
            f"round {round_number + 1} has {good} good update{'s' * (good != 1)}, MIN_CLIENTS is {self._spec.quorum}"
        )
        self._listen.line(f"{missing}; trying again ({retry} of {self._spec.retries})")
        for client_id, client in waiting.items():
            if client.cause == "said" or client.refusals:
                rounds.take_back(client_id, round_number)
            waiting[client_id] = _Waiting()
        rounds.ring()

    def _empty_received(self, round_number: int | None = None) -> None:
        """Remove what was received before.

        Of the round that begins, or goes on, the notes of what was begun to be read stay.
        """
        with storage_errors(self._received):
            if is_there(self._received) and (
                not os.path.isdir(self._received) or any(map(is_own_folder, self._received.iterdir()))
            ):
                self._received.rename(
                    self._received.with_name(f"{self._received.name}-{time.time_ns()}")
                )  # nobody's updates
            self._received.mkdir(parents=True, exist_ok=True)
            for path in self._received.iterdir():
                if round_number is None or not self._begun.is_of(path, round_number):
                    path.unlink()
