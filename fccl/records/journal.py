"""Records <-> `logs/*.jsonl` and `logs/status_i.json`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from fccl.errors import StorageError
from fccl.paths import LogPaths
from fccl.records.run import ClientMetrics, ClientStatus, RoundRecord, RunEvent
from fccl.storage.files import append_line, storage_errors, write_text
from fccl.storage.reading import read_records, read_rows

HEARTBEAT_GAP_S = 1.0  # the least between two heartbeats of a client that is training


def read_rounds(paths: LogPaths) -> list[RoundRecord]:
    """The complete rounds of a run, in order."""
    return read_records(paths.progress, RoundRecord, lambda row: row.get("event") == "round")


@dataclass
class Journal:
    """Appends the records of one run.

    Every line is whole. A heartbeat of a client in training is replaced at most once in `HEARTBEAT_GAP_S`.
    """

    paths: LogPaths
    _last_beat: dict[int, float] = field(default_factory=dict)
    _lengths: dict[Path, int] = field(default_factory=dict)  # of each file after the last line that was appended

    def begin_anew(self) -> None:
        """Forget the files that were written so far: they have been moved away."""
        self._lengths.clear()

    def write(self, record: RoundRecord | RunEvent | ClientMetrics) -> None:
        """Append one record to its file. Raises `StorageError`, also when lines that were in it are gone."""
        path = self.paths.client_metrics if isinstance(record, ClientMetrics) else self.paths.progress
        if _length(path) < self._lengths.get(path, 0):
            raise StorageError(
                f"{path} was removed or cut while the run was at work",
                hint="begin the run again: its record is not complete",
            )
        append_line(path, record.model_dump_json())
        self._lengths[path] = _length(path)

    def heartbeat(self, status: ClientStatus) -> None:
        """Replace a client's heartbeat. One in training is dropped when the last is younger than `HEARTBEAT_GAP_S`."""
        now = time.monotonic()
        gap = now - self._last_beat.get(status.client_id, -HEARTBEAT_GAP_S)
        if status.state == "training" and gap < HEARTBEAT_GAP_S:
            return
        self._last_beat[status.client_id] = now
        write_text(self.paths.status(status.client_id), status.model_dump_json() + "\n")

    def keep_rounds_before(self, next_round: int) -> None:
        """Forget the lines of rounds that were begun but not completed: the resumed run writes them again."""
        for path, events in ((self.paths.progress, ("round",)), (self.paths.client_metrics, ())):
            rows = [row for row in read_rows(path) if not _unfinished(row, next_round, events)]
            write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
            self._lengths[path] = _length(path)


def _length(path: Path) -> int:
    with storage_errors(path, "read"):
        return path.stat().st_size if path.exists() else 0


def _unfinished(row: dict[str, object], next_round: int, events: tuple[str, ...]) -> bool:
    number = row.get("round")
    of_a_round = not events or row.get("event") in events
    return of_a_round and isinstance(number, int) and number >= next_round
