"""What `fccl compare` has left beside the runs. It is of no run; a comparison that is still going on has no results yet."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from fccl.comparison import Comparison
from fccl.view.follow import parsed, read_small
from fccl.view.values import Compared

_LARGEST = 2**24  # bytes; a larger file is none
Stamp = tuple[int, int, int, int]


class ComparisonReader:
    """Reads one `results.json`, again only when the file is another one or was written to. Several threads may share one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp: Stamp | None = None
        self._found: Compared | None = None

    def refresh(self) -> Compared | None:
        """The results now, the same object until they change. None when there are none, or the file is half-written or none of its kind."""
        with self._lock:
            stamp = _stamp(self._path)  # before the content: what is written in between is read the next time
            if stamp != self._stamp:
                self._stamp, self._found = stamp, None if stamp is None else self._read(stamp)
            return self._found

    def _read(self, stamp: Stamp) -> Compared | None:
        content = read_small(self._path, _LARGEST)
        results = None if content is None else parsed(content, Comparison, strict=False)
        return None if results is None or not results.rows else Compared(results, stamp[-1] / 1e9)


def _stamp(path: Path) -> Stamp | None:
    """Which file it is, how long and when it was written; None when there is none."""
    with suppress(OSError):
        found = os.stat(path)
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    return None
