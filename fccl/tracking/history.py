"""What a run's logs hold already, for a tracker that is opened when the run goes on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from fccl.journal import read_records
from fccl.paths import LogPaths
from fccl.records import ClientMetrics, HeldOut, RoundRecord, RunEvent


def base_so_far(paths: LogPaths) -> HeldOut | None:
    """The base model on the validation split, as the run found it when it started."""
    started = read_records(paths.progress, RunEvent, lambda row: row.get("event") == "started")
    return next((event.held_out for event in started if event.held_out is not None), None)


def rounds_so_far(paths: LogPaths) -> Iterator[tuple[RoundRecord, Sequence[ClientMetrics]]]:
    """Every complete round with the metrics of its clients, in order."""
    metrics: dict[int, list[ClientMetrics]] = defaultdict(list)
    for each in read_records(paths.client_metrics, ClientMetrics):
        metrics[each.round].append(each)
    for record in read_records(paths.progress, RoundRecord, lambda row: row.get("event") == "round"):
        yield record, metrics[record.round]
