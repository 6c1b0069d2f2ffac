"""`Stopwatch`: the seconds of a round by what they were spent on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from fccl.adapters.adapter import Adapter
from fccl.messages import ClientFailure, ClientUpdate, FitTask, Given, Request, Statement
from fccl.records.run import RoundRecord, RoundSeconds
from fccl.transports.protocol import SILENT, Listener, RunIdentity, Transport

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Stopwatch:
    """Measures what it is given: a transport, whose seconds are those of training, and the server's validation.

    `taken` gives the seconds since it was called last. Verification takes its own time, which the record has.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._training, self._validation = now, 0.0, 0.0

    def transport(self, inner: Transport) -> Transport:
        """The same transport. All that passes between a request and its last answer is training."""
        return _Timed(inner, self)

    def validation(self, work: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        """The same function."""

        def timed(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
            began = self._now()
            try:
                return work(*arguments, **named)
            finally:
                self._validation += self._now() - began

        return timed

    def waited(self, answers: Iterator[Result]) -> Iterator[Result]:
        """The same answers, one by one."""
        began = self._now()
        try:
            yield from answers
        finally:
            self._training += self._now() - began

    def taken(self, record: RoundRecord) -> RoundSeconds:
        """The seconds of the round that ends with this record; the next begins."""
        verification = record.verification.seconds if record.verification else 0.0
        rest = max(0.0, record.seconds - self._training - self._validation - verification)
        found = RoundSeconds(training=self._training, verification=verification, validation=self._validation, rest=rest)
        self._training = self._validation = 0.0
        return found


class _Timed:
    """A transport under a stopwatch."""

    def __init__(self, inner: Transport, watch: Stopwatch) -> None:
        self._inner, self._watch = inner, watch

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inner.__exit__(kind, error, trace)

    def begin(self, run: RunIdentity, listen: Listener = SILENT) -> None:
        """As the transport itself."""
        self._inner.begin(run, listen)

    def ask(self, request: Request[Given], client_ids: Sequence[int]) -> Iterator[Given | ClientFailure]:
        """As the transport itself."""
        return self._watch.waited(self._inner.ask(request, client_ids))

    def late(self, task: FitTask, client_ids: Sequence[int]) -> Iterator[ClientUpdate]:
        """As the transport itself."""
        return self._watch.waited(self._inner.late(task, client_ids))

    def news(self, known: Mapping[int, float]) -> Sequence[Statement]:
        """As the transport itself."""
        return self._inner.news(known)

    def finish(self, run_id: str, next_round: int, adapter: Adapter) -> None:
        """As the transport itself."""
        self._inner.finish(run_id, next_round, adapter)
