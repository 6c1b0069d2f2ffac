"""A finished run beside the plan that was made for it."""

from __future__ import annotations

from pathlib import Path

from fccl.errors import FederationError
from fccl.paths import ADAPTER, CARD, LogPaths
from fccl.records.forecast import Forecast, Usage
from fccl.records.journal import read_rounds
from fccl.records.run import ClientMetrics, RoundRecord, RunEvent, RunInfo
from fccl.storage.files import storage_errors
from fccl.storage.reading import read_records, read_value
from fccl.view.forecast_tables import Actual


def forecast_of(logs: LogPaths) -> Forecast:
    """The plan that was made for the run in a folder. Raises `FederationError` when none was."""
    if (found := read_value(logs.plan, Forecast)) is None:
        raise FederationError(
            f"no plan was made for the run in {logs.root}",
            hint="`fccl plan` before `fccl run`, with the same settings, makes one and the run takes it along",
        )
    return found


def actual_of(logs: LogPaths) -> Actual:
    """The time, memory and disk that the run in a folder took, by its records.

    Raises `StorageError` when they cannot be read.
    """
    rounds = read_rounds(logs)
    events = read_records(logs.progress, RunEvent, lambda row: row.get("event") != "round")
    files = _files(logs)
    with storage_errors(logs.root, "read"):
        sizes = {file: file.stat().st_size for file in files}
    exact = (
        size
        for file, size in sizes.items()
        if file.suffix == ADAPTER or (logs.adapter in file.parents and file.suffix != CARD)
    )
    return Actual(
        rounds=rounds,
        metrics=read_records(logs.client_metrics, ClientMetrics),
        ends=_ends(read_value(logs.run, RunInfo), events, rounds),
        size=sum(sizes.values()),
        exact_size=sum(exact),
        usage=read_value(logs.usage, Usage),
    )


def _files(logs: LogPaths) -> list[Path]:
    """All files of the run, and no other that lies in its folder."""
    found: list[Path] = []
    for entry in logs.own_entries():
        found += [entry] if entry.is_file() else [file for file in entry.rglob("*") if file.is_file()]
    return found


def _ends(info: RunInfo | None, events: list[RunEvent], rounds: list[RoundRecord]) -> float | None:
    """Seconds before the first round and after the last. Where the run was stopped meanwhile, they say nothing."""
    times = {event.event: event.time for event in events}
    if info is None or not rounds or set(times) != {"started", "finished"}:
        return None
    return max(0.0, times["started"] - info.created) + max(0.0, times["finished"] - rounds[-1].time)
