"""Reads a run's folder again and again without disturbing the run; lists the runs; gives the last lines of a log."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal

from fccl.paths import ExchangePaths, LogPaths
from fccl.records.audit import Audit
from fccl.records.evaluation import EvaluationReport
from fccl.records.forecast import Forecast
from fccl.records.manifest import Manifest
from fccl.records.run import ClientStatus, RunInfo, RunState
from fccl.records.sites import SitesRecord
from fccl.storage.reading import opened, parsed, read_small
from fccl.view.frames import MetricsLog, ProgressLog
from fccl.view.hearing import Hearing
from fccl.view.members import member_numbers
from fccl.view.status import client_count, progress
from fccl.view.tail import LogFollower, ValueFile
from fccl.view.values import RunEntry, RunView

Log = Literal["progress", "client_metrics"]
_SMALL, _LARGE = 2**20, 2**26  # bytes: of what says what a run is; of an evaluation and a manifest
_STATUS_BYTES = 65_536
_MOST_ROUNDS = 2**31  # a state with more is not believed
_BLOCK = 2**16  # bytes of a log's end at a time
_MOST_TAIL = 2**26  # bytes from a log's end that are searched
_MOST_NAMES = 100_000  # names of a folder that are looked at


def list_runs(root: Path) -> tuple[RunEntry, ...]:
    """The run in `root` and the earlier ones in `root/runs/`, newest first."""
    here = LogPaths(root)
    entries = []
    for paths in (here, *(LogPaths(here.archive / name) for name in _names(here.archive))):
        content = read_small(paths.run, _SMALL)
        info = None if content is None else parsed(content, RunInfo, strict=False)
        if info is not None:
            entries.append(RunEntry(info.run_id, info.created, paths is here, paths))
    return tuple(sorted(entries, key=lambda entry: (entry.current, entry.created, entry.run_id), reverse=True))


class RunReader:
    """Reads one folder of logs, at each `refresh` only what is new. Several threads may share one."""

    def __init__(self, paths: LogPaths, exchange: ExchangePaths | None = None) -> None:
        self._paths = paths
        self._lock = threading.Lock()
        self._info = ValueFile(RunInfo, _SMALL)
        self._state = ValueFile(RunState, _SMALL)
        self._evaluation = ValueFile(EvaluationReport, _LARGE)
        self._manifest = ValueFile(Manifest, _LARGE)
        self._plan = ValueFile(Forecast, _LARGE)
        self._audit = ValueFile(Audit, _LARGE)
        self._sites = ValueFile(SitesRecord, _LARGE)
        self._own_beats = _Heartbeats(paths.root, paths.status, follow=True)
        self._hearing = Hearing(paths.root)
        self._exchange_beats = None if exchange is None else _Heartbeats(exchange.root, exchange.status, follow=False)
        self._logs = _Logs(paths, "")

    def refresh(self) -> RunView:
        """The run now. Nothing that lies in the folders, or is missing there, raises."""
        with self._lock:
            info = self._info.read(self._paths.run)
            run_id = "" if info is None else info.run_id
            if run_id != self._logs.run_id:
                self._logs = _Logs(self._paths, run_id)
            state = self._state.read(
                self._paths.state
            )  # before the log: a round that it speaks of is in the log already
            self._logs.refresh()
            view = self._view(
                info, state if state and state.run_id == run_id and state.total_rounds <= _MOST_ROUNDS else None
            )
            if info is None:
                return view
            view = self._with_sites(self._with_heartbeats(view))
            self._logs.furthest = max(self._logs.furthest, progress(view))
            return replace(view, furthest=self._logs.furthest)

    def _view(self, info: RunInfo | None, state: RunState | None) -> RunView:
        log, metrics = self._logs.progress, self._logs.metrics
        return RunView(
            paths=self._paths,
            run_id=self._logs.run_id,
            info=info,
            state=state,
            events=log.events,
            own_tests=log.own_tests,
            privacy=log.privacy,
            secure=log.secure,
            late=log.late,
            watched=log.watched,
            moves=log.moves,
            rounds=log.rounds.frame,
            shares=log.shares.frame,
            exclusions=log.exclusions.frame,
            declines=log.declines.frame,
            metrics=metrics.metrics.frame,
            statuses=(),
            evaluation=self._evaluation.read(self._paths.evaluation_json) if info else None,
            manifest=self._manifest.read(self._paths.manifest) if info else None,
            plan=self._plan.read(self._paths.plan) if info else None,
            audit=self._audit.read(self._paths.audit),
            unreadable=log.unreadable + metrics.unreadable,
            written=self._logs.written(self._hearing),
            base=next(
                (event.validation for event in log.events if event.event == "started" and event.validation is not None),
                None,
            ),
        )

    def _with_sites(self, view: RunView) -> RunView:
        """The run with the state of its sites, where Flower reaches them."""
        said, found = self._sites.read(self._paths.sites), self._sites.found
        if said is None or found is None or said.run_id != view.run_id:
            return view
        return replace(view, sites=said, sites_heard=self._hearing.hear(self._paths.sites.name, found))

    def _with_heartbeats(self, view: RunView) -> RunView:
        """The newest heartbeat of every client.

        A client that has just started names no run yet; its heartbeat counts for this one.
        """
        count, over = client_count(view), view.state is not None and view.state.finished
        asked = None if count is None else frozenset(member_numbers(view, count))
        own = [(status, heard) for status, heard in self._own_beats.read(asked) if status.run_id == view.run_id]
        newest, heard_at = (
            {status.client_id: status for status, _ in own},
            {status.client_id: heard for status, heard in own},
        )
        beating = set()
        for status, heard in self._exchange_beats.read(asked) if self._exchange_beats else ():
            ours = status.run_id == view.run_id or (status.run_id == "" and status.state == "idle" and not over)
            if ours and (status.client_id not in newest or status.time >= newest[status.client_id].time):
                newest[status.client_id], heard_at[status.client_id] = status, heard
                beating.add(status.client_id)
        return replace(
            view,
            statuses=tuple(newest[client] for client in sorted(newest)),
            beating=frozenset(beating),
            heard=heard_at,
        )


class _Logs:
    """The content of one run's logs as far as it was read. Without a run nothing is read."""

    def __init__(self, paths: LogPaths, run_id: str) -> None:
        self.run_id, self.furthest = run_id, 0.0
        self.progress, self.metrics = ProgressLog(run_id), MetricsLog(run_id)
        self._followers = (LogFollower(paths.progress, self.progress), LogFollower(paths.client_metrics, self.metrics))

    def refresh(self) -> None:
        if self.run_id:
            for follower in self._followers:
                follower.refresh()

    def written(self, hearing: Hearing) -> float | None:
        """The time of the last write to a log, by the reader's clock."""
        times = [
            hearing.hear(follower.path.name, follower.found)
            for follower in self._followers
            if follower.found is not None
        ]
        return max(times, default=None)


class _Heartbeats:
    """The heartbeats in one folder."""

    def __init__(self, root: Path, path_of: Callable[[int], Path], follow: bool) -> None:
        self._root, self._path_of, self._follow = root, path_of, follow
        self._files: dict[int, ValueFile[ClientStatus]] = {}
        self._hearing = Hearing(root)

    def read(self, clients: frozenset[int] | None) -> Iterator[tuple[ClientStatus, float]]:
        """The heartbeats of these clients (None: of all), each with the reader's time at which it came."""
        for text in _names(self._root):
            client = _client_of(text)
            if client is None or (clients is not None and client not in clients):
                continue
            file = self._files.setdefault(client, ValueFile(ClientStatus, _STATUS_BYTES, self._follow, strict=True))
            status = file.read(self._path_of(client))
            if status is not None and file.found is not None and status.client_id == client:
                yield status, self._hearing.hear(text, file.found)


def _client_of(text: str) -> int | None:
    """The client whose heartbeat has this name; both folders use the same names."""
    name = ExchangePaths.name(text) if text.startswith("status_") else None
    return None if name is None else name.client


def _names(folder: Path) -> list[str]:
    with suppress(OSError), os.scandir(folder) as entries:
        return [entry.name for entry in islice(entries, _MOST_NAMES)]
    return []


def tail(view: RunView, log: Log, n: int, contains: str = "") -> list[str]:
    """The last `n` complete lines of a log that contain a text, ignoring case; unchanged, in the order of the file."""
    wanted = contains.casefold()
    found: list[str] = []
    with suppress(OSError), opened(view.paths.progress if log == "progress" else view.paths.client_metrics) as file:
        for line in _backwards(file):
            text = line.decode("utf-8", "replace")
            if len(found) >= n:
                break
            if text.strip() and wanted in text.casefold():
                found.append(text)
    return found[::-1]


def _backwards(file: int) -> Iterator[bytes]:
    """The complete lines of a file, the last one first."""
    size = end = os.fstat(file).st_size
    later, whole, want = b"", False, _BLOCK
    while end > 0 and size - end < _MOST_TAIL:
        start = max(0, end - want)
        first, *others = (os.pread(file, end - start, start) + later).split(b"\n")
        yield from reversed(others if whole else others[:-1])
        want = _BLOCK if others else 2 * want  # a long line is not put together in small pieces
        end, later, whole = start, first, whole or bool(others)
    if whole and end == 0:
        yield later
