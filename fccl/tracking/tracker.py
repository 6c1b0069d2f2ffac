"""`Tracker`: a receiver of a run's figures beside its logs. `GuardedTracker` passes them on and never ends the run.

A tracker may be told a round again (a run that was killed and resumed tells all of them): it must then hold it once.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Literal, Protocol, Self

from fccl.errors import SettingsError
from fccl.extras import require_extra
from fccl.paths import LogPaths
from fccl.records.evaluation import EvaluationReport
from fccl.records.journal import read_rounds
from fccl.records.run import ClientMetrics, RoundRecord, RunEvent, RunInfo, Validation
from fccl.storage.reading import read_records
from fccl.tracking.listener import Past, RunListener

Kind = Literal["none", "tensorboard", "mlflow", "wandb"]
Status = Literal["finished", "interrupted", "failed"]
log = logging.getLogger("fccl.tracking")


class Tracker(Protocol):
    """A receiver of a run's figures, beside its own logs."""

    def started(self, info: RunInfo, base: Validation | None) -> None:
        """The run begins, or goes on; `base` is the base model on the validation split."""

    def round(self, record: RoundRecord, metrics: Sequence[ClientMetrics]) -> None:
        """A complete round. Rounds come in order, after `started` from the first."""

    def evaluated(self, report: EvaluationReport) -> None:
        """The evaluation on the test split."""

    def ended(self, status: Status) -> None:
        """The run has ended, for now or for good."""


class NoTracker:
    """Keeps nothing."""

    def started(self, info: RunInfo, base: Validation | None) -> None:
        return None

    def round(self, record: RoundRecord, metrics: Sequence[ClientMetrics]) -> None:
        return None

    def evaluated(self, report: EvaluationReport) -> None:
        return None

    def ended(self, status: Status) -> None:
        return None


def tracker_for(kind: Kind, paths: LogPaths) -> Tracker:
    """The tracker of this kind; it opens nothing yet. Raises `SettingsError` when its libraries are not installed."""
    if kind == "none":
        return NoTracker()
    require_extra(kind, f"TRACK={kind}")
    module = import_module(f"fccl.tracking.{kind}_tracker")
    tracker: Tracker = getattr(module, f"{kind.capitalize()}Tracker")(paths)
    return tracker


@dataclass
class GuardedTracker(RunListener):
    """The listener that tells a tracker of a run. As a context manager it ends the tracker with the block, with the
    status that follows from how the block ends.

    A tracker that fails is left alone from then on, with one line to `tell`; the run and its logs go on.
    """

    tracker: Tracker
    tell: Callable[[str], None]
    _open: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        status: Status = (
            "finished"
            if kind is None
            else "interrupted"
            if issubclass(kind, KeyboardInterrupt | GeneratorExit)
            else "failed"
        )
        self._pass_on(lambda: self.tracker.ended(status))

    def started(self, info: RunInfo, base: Validation | None) -> None:
        """Open the tracker for a new run.

        Raises `SettingsError` when it does not open: better no run than one whose figures go nowhere.
        """
        try:
            self.tracker.started(info, base)
        except Exception as error:
            log.debug("the tracker does not open", exc_info=error)
            way_out = "mend its settings, or leave --track out"
            raise SettingsError(f"the tracker does not open: {_reason(error)}", hint=way_out) from error
        self._open = True

    def resumed(self, info: RunInfo, base: Validation | None, past: Past, next_round: int) -> None:
        """Open the tracker for a run that goes on, and tell it all rounds so far."""
        self._open = True
        self._pass_on(lambda: self.tracker.started(info, base))
        for record, metrics in past:
            self.round(record, metrics)

    def round(self, record: RoundRecord, metrics: Sequence[ClientMetrics]) -> None:
        self._pass_on(lambda: self.tracker.round(record, metrics))

    def evaluated(self, report: EvaluationReport) -> None:
        self._pass_on(lambda: self.tracker.evaluated(report))

    def _pass_on(self, call: Callable[[], None]) -> None:
        if not self._open:
            return
        try:
            call()
        except Exception as error:  # whatever a tracker's library raises
            self._open = False
            log.debug("the tracker failed", exc_info=error)
            self.tell(
                f"The tracker failed and is left alone from now on: {_reason(error)}. The run goes on; its logs are "
                "complete."
            )


def _reason(error: Exception) -> str:
    """The first line of what an error says."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0][:300]}" if said else type(error).__name__


def base_so_far(paths: LogPaths) -> Validation | None:
    """The base model on the validation split, as the run found it when it started."""
    started = read_records(paths.progress, RunEvent, lambda row: row.get("event") == "started")
    return next((event.validation for event in started if event.validation is not None), None)


def rounds_so_far(paths: LogPaths) -> Iterator[tuple[RoundRecord, Sequence[ClientMetrics]]]:
    """Every complete round with the metrics of its clients, in order."""
    metrics: dict[int, list[ClientMetrics]] = defaultdict(list)
    for each in read_records(paths.client_metrics, ClientMetrics):
        metrics[each.round].append(each)
    for record in read_rounds(paths):
        yield record, metrics[record.round]
