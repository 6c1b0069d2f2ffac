"""Files that other processes write, read again and again: logs that grow, small files that are replaced.

Nothing here raises for what it finds. A folder or a pipe in a file's place, and a file that may not be read, count as
missing.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol

from fccl.records.comparison import Comparison
from fccl.storage.reading import Kind, opened, parsed, read_small, read_whole
from fccl.view.values import Compared

_BLOCK = 2**20  # bytes at a time: the records of a block are small enough for the processor's cache
_LONGEST = 2**26  # bytes: a longer line is nobody's record
_TAIL = 1024  # bytes before the offset, remembered to notice that they are others now
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)


class Lines(Protocol):
    """A receiver of the lines of a log."""

    def clear(self) -> None:
        """Forget everything: the log begins anew."""
        ...

    def feed(self, lines: list[bytes]) -> None:
        """Take the next complete lines."""
        ...


@dataclass
class LogFollower:
    """Passes on every complete line of a log, once. A half-written last line waits until it is whole.

    Everything is forgotten and read again when the file was replaced, became shorter, or has other content where the
    reading stopped.
    """

    path: Path
    to: Lines
    _file: tuple[int, int] | None = None  # device and inode
    _offset: int = 0
    _tail: bytes = b""
    found: os.stat_result | None = None  # of the file that was read last, as it was then

    def refresh(self) -> None:
        """Read what is new. Where the file is there but cannot be read, what was read before stays."""
        try:
            with opened(self.path) as file:
                self._go_on(file)
        except OSError as error:
            if error.errno in _NO_FILE:
                self.found = None
                self._start_over(None)

    def _go_on(self, file: int) -> None:
        found = self.found = os.fstat(file)
        if not self._is_same(file, found):
            self._start_over((found.st_dev, found.st_ino))
        while self._offset < found.st_size and (lines := self._next_lines(file)):
            self.to.feed(lines)

    def _is_same(self, file: int, found: os.stat_result) -> bool:
        before = self._offset - len(self._tail)
        return (found.st_dev, found.st_ino) == self._file and os.pread(file, len(self._tail), before) == self._tail

    def _start_over(self, file: tuple[int, int] | None) -> None:
        if self._file is not None:
            self.to.clear()
        self._file, self._offset, self._tail = file, 0, b""

    def _next_lines(self, file: int) -> list[bytes]:
        want = _BLOCK
        while True:
            block = os.pread(file, want, self._offset)
            end = block.rfind(b"\n") + 1
            if not end and len(block) < want:
                return []
            if end or want >= _LONGEST:
                break
            want *= 4
        end = end or len(block)
        self._offset, self._tail = self._offset + end, block[max(0, end - _TAIL) : end]
        return block[:end].removesuffix(b"\n").split(b"\n")


@dataclass
class ValueFile(Generic[Kind]):
    """A small JSON file as a value, parsed again only when its content is another one.

    Links are followed where `follow` says so.
    """

    kind: type[Kind]
    limit: int  # bytes; a larger file counts as missing
    follow: bool = True
    strict: bool = False  # "1" is no number
    found: os.stat_result | None = None  # of the file that was read last
    _content: bytes | None = None
    _value: Kind | None = None

    def read(self, path: Path) -> Kind | None:
        """The value; None when the file is missing or holds anything else."""
        content, self.found = read_whole(path, self.limit, self.follow)
        if content != self._content:
            self._content, self._value = content, None if content is None else parsed(content, self.kind, self.strict)
        return self._value


_LARGEST = 2**24  # bytes; a larger file counts as missing
Stamp = tuple[int, int, int, int]


class ComparisonReader:
    """Reads one `results.json`, again only when the file is another one or was written to.

    Several threads may share one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._stamp: Stamp | None = None
        self._found: Compared | None = None

    def refresh(self) -> Compared | None:
        """The results now, the same object until they change.

        None when there are none, or the file is half-written or holds anything else.
        """
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
    """The file's identity, length and time of change; None when it is missing."""
    with suppress(OSError):
        found = os.stat(path)
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    return None
