"""A cache on the disk: bytes by key, bounded, for one owner. Losing it costs time and nothing else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fccl.errors import StorageError, UpdateRejected
from fccl.storage import temporary
from fccl.storage.files import write_bytes
from fccl.storage.private import private_folder
from fccl.storage.reading import is_own_folder, read_bounded

_SUFFIX = ".cache"
_MARK = b"fccl-cache-1"
_HEAD = len(_MARK) + hashlib.sha256().digest_size


@dataclass
class Cache:
    """Files of mode 0600 in `folder`, together at most `most_bytes`; those that were read longest ago go first.

    The folder stands in a private folder of its owner, which is made anew if it was deleted.
    A file that is damaged, cut or another key's is no entry, and the next `put` replaces it. A disk that refuses is
    said to `tell` once, and nothing is kept.

        cache = Cache(Path("state/client_0/cache"), 2_000_000_000)
        cache.put("squares of 3", b"9")
        cache.get("squares of 3")   # b"9", in any later process too, or None
    """

    folder: Path
    most_bytes: int
    tell: Callable[[str], None] = lambda line: None
    _told: bool = field(default=False, init=False)
    _bytes: int = field(default=0, init=False)  # of all entries, or more where some were deleted by others

    def __post_init__(self) -> None:
        """Sweep what killed processes left, and go below the bound, which may be lower than it was."""
        if is_own_folder(self.folder):
            temporary.sweep(self.folder)
            self._make_room(0)

    def get(self, key: str) -> bytes | None:
        """The bytes that were put under this key, if they are here and whole."""
        path = self._path(key)
        try:
            found = bytes(read_bounded(path, self.most_bytes))
        except (StorageError, UpdateRejected):
            return None
        content = found[_HEAD:]
        if found[:_HEAD] != _head(key, content):
            return None
        with suppress(OSError):
            os.utime(path)
        return content

    def put(self, key: str, content: bytes) -> None:
        """Keep these bytes, where the bound and the disk allow it."""
        size = _HEAD + len(content)
        if size > self.most_bytes:
            return
        try:
            private_folder(self.folder.parent)  # its owner's, which may have been deleted together with the cache
            private_folder(self.folder)
            if self._bytes + size > self.most_bytes:
                self._make_room(size)
            write_bytes(self._path(key), _head(key, content) + content, mode=0o600)
            self._bytes += size
        except StorageError as error:
            self._say(f"nothing is kept in the cache: {error}")

    def _path(self, key: str) -> Path:
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}{_SUFFIX}"

    def _make_room(self, size: int) -> None:
        """Count the entries, and delete some until so many more bytes fit."""
        entries = sorted(self._entries())
        self._bytes = sum(length for _, length, _ in entries)
        for _, length, path in entries:
            if self._bytes + size <= self.most_bytes:
                return
            with suppress(OSError):
                path.unlink()
            self._bytes -= length

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        """When each was last read or written, its length and its path."""
        with suppress(OSError):
            for name in os.listdir(self.folder):
                path = self.folder / name
                with suppress(OSError):
                    if name.endswith(_SUFFIX):
                        found = path.lstat()
                        yield found.st_mtime_ns, found.st_size, path

    def _say(self, line: str) -> None:
        if not self._told:
            self._told = True
            self.tell(line)


def _head(key: str, content: bytes) -> bytes:
    """A mark, and a hash of key and content: an entry tells by itself whether it is whole and whose."""
    return _MARK + hashlib.sha256(f"{len(key.encode())}:{key}".encode() + content).digest()
