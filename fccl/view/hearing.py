"""`Hearing`: the time of a file's last change by the reader's own clock.

A time inside a file is by the writer's clock. The file's own time is by the clock of its file system: on this machine
the reader's, elsewhere another one, which differs by an unknown time. No file was written after it was seen, so the
youngest file bounds the difference. The bound gets better the longer files are watched. A dead client may look alive
until it was watched for as long as a heartbeat may be old. A live one is never taken for dead.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fccl.storage.mounts import is_remote


@dataclass(frozen=True)
class _Seen:
    identity: tuple[int, int, int]
    written: float  # by the file system's clock
    after: float  # by the reader's clock: it was not there yet when the reader looked then
    before: float  # it was there then


@dataclass
class Hearing:
    """Remembers the files of one folder as they were when they were last looked at."""

    folder: Path
    clock: Callable[[], float] = time.time
    remote: Callable[[Path], bool] = is_remote
    # at most so much is this clock ahead of the file system's; unknown before the first file
    _ahead: float | None = None
    _seen: dict[str, _Seen] = field(default_factory=dict)
    _looked: dict[str, float] = field(default_factory=dict)

    def hear(self, name: str, found: os.stat_result) -> float:
        """The time of the file's last change, in seconds since 1970 by the reader's clock."""
        now, known = self.clock(), self._seen.get(name)
        identity = (found.st_ino, found.st_mtime_ns, found.st_size)
        if self._ahead is None:
            self._ahead = math.inf if self.remote(self.folder) else 0.0
        if self._ahead:
            self._ahead = min(self._ahead, now - found.st_mtime)
        if known is None or known.identity != identity:
            self._seen[name] = _Seen(identity, found.st_mtime, -math.inf if known is None else self._looked[name], now)
        self._looked[name] = now
        return self._heard(self._seen[name])

    def _heard(self, seen: _Seen) -> float:
        return min(max(seen.written + (self._ahead or 0.0), seen.after), seen.before)
