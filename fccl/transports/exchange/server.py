"""The exchange directory: the clients are other processes, in containers or on machines that share a file system.

`docs/protocol.md` says who writes which file when. This is the server's side of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from fccl.adapters.adapter import Adapter
from fccl.adapters.coded import CodedReader
from fccl.adapters.ranks import leading
from fccl.adapters.stored import AdapterReader
from fccl.errors import FederationError
from fccl.keys import Keys, PublicKeys
from fccl.messages import (
    Answer,
    ClientFailure,
    ClientUpdate,
    FitTask,
    Given,
    Reply,
    ReplyType,
    Request,
    ServedRequest,
    Statement,
)
from fccl.paths import ExchangePaths
from fccl.specs import ExchangeSpec
from fccl.storage.locks import exclusive, in_sight
from fccl.storage.temporary import sweep
from fccl.transports.exchange.answers import AnswerReader
from fccl.transports.exchange.begun import BegunReadings
from fccl.transports.exchange.collect import Collector, Waiting
from fccl.transports.exchange.liveness import Liveness
from fccl.transports.exchange.members import Statements
from fccl.transports.exchange.quarantine import Quarantine
from fccl.transports.exchange.received import FitAnswers, Received
from fccl.transports.exchange.requests import OpenRequest
from fccl.transports.exchange.rounds import Rounds
from fccl.transports.exchange.watch import Watcher, watcher
from fccl.transports.exchange.wire import AdapterFile, FitWork, TaskFile
from fccl.transports.protocol import SILENT, Listener, RunIdentity

COMMITTING = ("done_", "reply_")  # how files begin that commit an answer
_NOT_ASKED_AGAIN = ("declined", "gone")
_ORIGINAL = "knows only the original files, which have no requests of kind {!r}"


class ExchangeTransport:
    """Holds the directory from `__enter__` to `__exit__`, so that no other orchestrator can.

    `received` is a folder that only this process writes: an update is kept there as it was when it was checked, so
    nobody can change it before it is used. `trouble` says why a client cannot be reached, where the files travel on to
    it; empty where it may still answer.
    """

    def __init__(
        self,
        paths: ExchangePaths,
        spec: ExchangeSpec,
        received: Path,
        keys: Keys | None = None,
        trouble: Callable[[int], str] = lambda client_id: "",
    ) -> None:
        self.quarantine = Quarantine(paths)
        self._paths, self._spec, self._keys, self._trouble = paths, spec, keys, trouble
        self._received = Received(received, BegunReadings(received, paths))
        self._liveness = Liveness(paths, spec.stale_s, lambda status: self._listen.heartbeat(status))
        self._statements = Statements(paths, self.quarantine, self._public, spec.open)
        self._listen = SILENT
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
            self._watcher = held.enter_context(watcher(self._paths.root, self._spec.watch, COMMITTING))
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
        return self._publish(self.rounds_of(task.run_id), task, client_ids)

    def ask(self, request: Request[Given], client_ids: Sequence[int]) -> Iterator[Given | ClientFailure]:
        """Open the request and yield each client's answer as it comes, then a failure for every client that has none.

        With fewer updates than the quorum the clients whose training failed are asked again, `retries` times; those
        that decline the phase are not. Raises `StorageError`.
        """
        answers: Iterator[Any] = (
            self._fit(request, client_ids)
            if isinstance(request, FitTask)
            else self._served(cast(ServedRequest[Reply], request), client_ids)
        )
        yield from answers

    def _fit(self, task: FitTask, client_ids: Sequence[int]) -> Iterator[Answer]:
        collector, rounds = self._collector(), self.rounds_of(task.run_id)
        rounds.close_request()
        publish = partial(self._publish, rounds, task, client_ids)
        opened = publish()
        rounds.tidy(opened)
        self._received.empty(task.round)
        source = self._answers(task, opened, rounds, lambda: rounds.stands() or publish())
        waiting = collector.start(source, client_ids)
        for retry in range(self._spec.retries + 1):
            if retry:
                self._ask_again(rounds, waiting, task.round, len(client_ids) - len(waiting), retry)
            yield from collector.attempt(source, waiting)
            nobody_left = all(client.cause in _NOT_ASKED_AGAIN for client in waiting.values())
            if nobody_left or len(client_ids) - len(waiting) >= self._spec.quorum:
                break
        yield from (client.failure(client_id) for client_id, client in sorted(waiting.items()))

    def late(self, task: FitTask, client_ids: Sequence[int]) -> Iterator[ClientUpdate]:
        """Updates to a round that is closed, of clients that were given up in it. Waits for nobody.

        Their files are checked as those of an open round, against what the round's task was. Raises `StorageError`.
        """
        rounds = self.rounds_of(task.run_id)
        asked = rounds.task(task.round, task.phase, task.adapter.to_bytes(), self._work(rounds, task, client_ids))
        source = self._answers(task, asked, rounds, rounds.stands)
        yield from self._collector().there_now(source, client_ids)

    def news(self, known: Mapping[int, float]) -> Sequence[Statement]:
        """The clients' statements that are newer than the `known`; refuses those that are not their client's."""
        return [] if self._rounds is None else list(self._statements.news(self._rounds.run_id, known))

    def _served(
        self, request: ServedRequest[ReplyType], client_ids: Sequence[int]
    ) -> Iterator[ReplyType | ClientFailure]:
        """The replies to a request of another kind than `fit`. Peers of the original protocol have none."""
        originals = [client_id for client_id in client_ids if client_id in self._spec.originals]
        able = [client_id for client_id in client_ids if client_id not in self._spec.originals]
        collector = self._collector()
        self._received.make()
        opened = OpenRequest.publish(request, able, self.rounds_of(request.run_id))
        try:
            waiting = collector.start(opened, able)
            yield from collector.attempt(opened, waiting)
        finally:
            opened.close()
        yield from (client.failure(client_id) for client_id, client in sorted(waiting.items()))
        yield from (ClientFailure(client_id, _ORIGINAL.format(request.kind)) for client_id in originals)

    def finish(self, run_id: str, next_round: int, adapter: Adapter) -> None:
        """Tell the clients that the run is done, and leave them the final adapter.

        Nobody may need an update any more.
        """
        self._require_here()
        rounds = self.rounds_of(run_id)
        rounds.close_request()
        rounds.tidy(rounds.open(next_round, "done", adapter, None))
        self._received.empty()

    def rounds_of(self, run_id: str) -> Rounds:
        """The rounds of this run, which begins with them when nobody has begun it."""
        if self._rounds is None or self._rounds.run_id != run_id:
            return self._begin(RunIdentity(run_id))
        return self._rounds

    def _begin(self, run: RunIdentity) -> Rounds:
        self._rounds = Rounds(
            paths=self._paths,
            run_id=run.run_id,
            run_created=run.created,
            is_client=self._is_client,
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
        return rounds.open(task.round, task.phase, task.adapter, self._work(rounds, task, client_ids), task.coded)

    def _work(self, rounds: Rounds, task: FitTask, client_ids: Sequence[int]) -> FitWork:
        """The work of these clients, once the files that it names are there."""
        told, corrections = task.corrections, None
        if told is not None:
            corrections = tuple(rounds.keep(told.of(client_id), self._paths.correction) for client_id in client_ids)
        reference = None if task.reference is None else rounds.keep(task.reference, self._paths.reference)
        files = {"reference": reference, "corrections": corrections, "late": self._spec.late, "open": self._spec.open}
        files["coded"] = None if task.coded is None else AdapterFile.of(task.coded)
        return FitWork.of(task.terms(), clients=tuple(client_ids), **files)

    def _public(self) -> PublicKeys | None:
        """Everybody's public keys as they are now."""
        return self._keys.current() if self._keys else None

    def _answers(self, task: FitTask, asked: TaskFile, rounds: Rounds, stand_by: Callable[[], object]) -> FitAnswers:
        return FitAnswers(self._reader(task, asked, rounds), self._received, self._public, stand_by)

    def _is_client(self, client_id: int) -> bool:
        public = self._public() if self._spec.open else None
        return client_id < self._spec.num_clients or (public is not None and client_id in public.clients)

    def _reader(self, task: FitTask, opened: TaskFile, rounds: Rounds) -> AnswerReader:
        of_rank = partial(self._adapters, task)
        return AnswerReader(
            self._paths,
            opened,
            of_rank(task.model.lora_r),
            of_rank,
            self._public(),
            rounds.opened(task.round),
            self._spec.originals,
            None if task.train.codec.is_whole else partial(_coded_reader, task),
        )

    def _collector(self) -> Collector:
        return Collector(
            spec=self._spec,
            quarantine=self.quarantine,
            liveness=self._liveness,
            begun=self._received.begun,
            listen=self._listen,
            watching=self._watching(),
            require_here=self._require_here,
            trouble=self._trouble,
            gone=self._statements.gone,
        )

    def _ask_again(self, rounds: Rounds, waiting: dict[int, Waiting], round_number: int, good: int, retry: int) -> None:
        missing = (
            f"round {round_number + 1} has {good} good update{'s' * (good != 1)}, MIN_CLIENTS is {self._spec.quorum}"
        )
        self._listen.line(f"{missing}; trying again ({retry} of {self._spec.retries})")
        for client_id, client in waiting.items():
            if client.cause in _NOT_ASKED_AGAIN:
                continue
            if client.cause == "said" or client.refusals:
                rounds.take_back(client_id, round_number)
            waiting[client_id] = Waiting()
        rounds.ring()


def _coded_reader(task: FitTask, rank: int | None) -> CodedReader:
    """The reader of updates of this rank, or of the federation's, as changes of the task's adapter.

    Raises `AdapterError` where the task allows none.
    """
    if rank is not None:
        task.require_rank(rank)
    return CodedReader(leading(task.trained, rank or task.model.lora_r), task.train.codec)
