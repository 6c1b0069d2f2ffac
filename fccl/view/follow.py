"""Files that other processes write, read again and again: logs that grow, small files that are replaced.

Nothing here raises for what it finds. A file that is not there, a folder or a pipe in its place and a file that may not be read are all no file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pydantic import ValidationError

from fccl.reading import NotJson, json_value
from fccl.specs import Value

_BLOCK = 2**20  # bytes at a time: the records of a block are small enough for the processor's cache
_LONGEST = 2**26  # bytes: a longer line is nobody's record
_TAIL = 1024  # bytes before the offset, remembered to notice that they are others now
_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
Kind = TypeVar("Kind", bound=Value)


class Lines(Protocol):
    """What takes the lines of a log."""

    def clear(self) -> None:
        """Forget everything: the log begins anew."""
        ...

    def feed(self, lines: list[bytes]) -> None:
        """Take the next complete lines."""
        ...


@dataclass
class Follower:
    """Hands every complete line of a log on, once. A half-written last line waits until it is whole.

    When the file is another one, shorter, or no longer ends where it was left as it did, everything is forgotten and read again.
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
    """A small JSON file as a value, parsed again only when its content is another one. Links are followed where `follow` says so."""

    kind: type[Kind]
    limit: int  # bytes; a larger file is none
    follow: bool = True
    strict: bool = False  # "1" is no number
    found: os.stat_result | None = None  # of the file that was read last
    _content: bytes | None = None
    _value: Kind | None = None

    def read(self, path: Path) -> Kind | None:
        """The value; None when the file is not there or is none of its kind."""
        content, self.found = _read_whole(path, self.limit, self.follow)
        if content != self._content:
            self._content, self._value = content, None if content is None else parsed(content, self.kind, self.strict)
        return self._value


def parsed(content: bytes, kind: type[Kind], strict: bool = True) -> Kind | None:
    """JSON as a value; None when it is not one."""
    try:
        json_value(content)
        return kind.model_validate_json(content, strict=strict)
    except (NotJson, ValidationError):
        return None


def read_small(path: Path | str, limit: int, follow: bool = True, folder: int | None = None) -> bytes | None:
    """The content of a regular file of at most `limit` bytes, else None. `folder` is an open folder that the path begins in."""
    return _read_whole(path, limit, follow, folder)[0]


def _read_whole(path: Path | str, limit: int, follow: bool, folder: int | None = None) -> tuple[bytes | None, os.stat_result | None]:
    """The content, and what the file was when it was read."""
    try:
        with opened(path, follow, folder) as file:
            content, found = os.pread(file, limit + 1, 0), os.fstat(file)
    except OSError:
        return None, None
    return (content, found) if len(content) <= limit else (None, None)


@contextmanager
def opened(path: Path | str, follow: bool = True, folder: int | None = None) -> Iterator[int]:
    """A regular file, open to be read. Raises `OSError`; of the kind `FileNotFoundError` when something else has its name."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    file = os.open(path, flags, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a regular file", str(path))
        yield file
    finally:
        os.close(file)
