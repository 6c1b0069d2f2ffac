"""`RunListener`: hears what a run does. Screens and trackers are listeners, and a notebook can bring its own.

>>> class Losses(RunListener):
...     def round(self, record, metrics):
...         print(record.round + 1, record.validation and record.validation.loss)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fccl.messages import Answer
from fccl.records.evaluation import EvaluationReport
from fccl.records.run import ClientMetrics, ClientStatus, RoundRecord, RunInfo, Validation

Past = Sequence[tuple[RoundRecord, Sequence[ClientMetrics]]]  # complete rounds with the metrics of their clients


@dataclass(frozen=True)
class Stop:
    """A run that ended before its last round: how far it is, and whether it can be resumed."""

    complete: int  # rounds
    total: int
    resumable: bool


class RunListener:
    """Hears of nothing: every method is empty. A listener overrides the methods that it needs."""

    def started(self, info: RunInfo, base: Validation | None) -> None:
        """A new run begins. `base` is the base model on the validation split, if there is one."""

    def resumed(self, info: RunInfo, base: Validation | None, past: Past, next_round: int) -> None:
        """A run goes on. `past` are its rounds so far, as its records have them."""

    def told(self, line: str) -> None:
        """A line that a person should read."""

    def status(self, status: ClientStatus) -> None:
        """A client's heartbeat."""

    def answer(self, answer: Answer) -> None:
        """A client's update or failure."""

    def learning(self, status: ClientStatus) -> None:
        """The server trains on its own examples, after the aggregation. The status' `client_id` means nothing."""

    def round(self, record: RoundRecord, metrics: Sequence[ClientMetrics]) -> None:
        """A complete round: it is on the disk."""

    def stopped(self, stop: Stop) -> None:
        """The run was interrupted or failed between its first round and its last."""

    def finished(self) -> None:
        """All rounds are complete, and the final adapter is on the disk."""

    def evaluated(self, report: EvaluationReport) -> None:
        """The evaluation on the test split, before it is written."""


class Listeners(RunListener):
    """Several listeners as one, told in the given order."""

    def __init__(self, listeners: Iterable[RunListener]) -> None:
        self._all = tuple(listeners)

    def _each(self, tell: Callable[[RunListener], None]) -> None:
        for listener in self._all:
            tell(listener)

    def started(self, info: RunInfo, base: Validation | None) -> None:
        self._each(lambda listener: listener.started(info, base))

    def resumed(self, info: RunInfo, base: Validation | None, past: Past, next_round: int) -> None:
        self._each(lambda listener: listener.resumed(info, base, past, next_round))

    def told(self, line: str) -> None:
        self._each(lambda listener: listener.told(line))

    def status(self, status: ClientStatus) -> None:
        self._each(lambda listener: listener.status(status))

    def answer(self, answer: Answer) -> None:
        self._each(lambda listener: listener.answer(answer))

    def learning(self, status: ClientStatus) -> None:
        self._each(lambda listener: listener.learning(status))

    def round(self, record: RoundRecord, metrics: Sequence[ClientMetrics]) -> None:
        self._each(lambda listener: listener.round(record, metrics))

    def stopped(self, stop: Stop) -> None:
        self._each(lambda listener: listener.stopped(stop))

    def finished(self) -> None:
        self._each(lambda listener: listener.finished())

    def evaluated(self, report: EvaluationReport) -> None:
        self._each(lambda listener: listener.evaluated(report))
