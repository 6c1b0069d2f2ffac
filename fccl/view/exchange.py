"""The exchange directory as it lies there now: names, sizes and times.

No file is opened but the newest reasons of refusals.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from fccl.paths import ExchangePaths
from fccl.records.rejection import Rejection
from fccl.storage.reading import parsed, read_small
from fccl.view.values import ExchangeFile, ExchangeView

_MOST_NAMES = 50_000  # names of a folder that are looked at
_MOST_STRANGERS = 100
_MOST_REASONS = 200
_REASON_BYTES = 65_536
_REASON = re.compile("([0-9]{1,30})_reason[.]json")
_LOCK = re.compile("(orchestrator|client_[0-9]{1,9})[.]lock")


class ExchangeReader:
    """Looks at one exchange directory. Several threads may share one."""

    def __init__(self, paths: ExchangePaths) -> None:
        self._paths = paths
        self._lock = threading.Lock()
        self._reasons: dict[str, Rejection | None] = {}

    def refresh(self) -> ExchangeView:
        """The directory now. Nothing that lies there raises."""
        with self._lock:
            rejected, total = self._rejected()
            files: list[ExchangeFile] = []
            strangers: list[str] = []
            for entry in _entries(self._paths.root):
                file = _file(entry)
                if file is not None:
                    files.append(file)
                elif self._is_strange(entry.name):
                    strangers.append(entry.name)
            files.sort(key=lambda file: (file.round is None, file.round or 0, file.kind, file.client or 0, file.name))
            return ExchangeView(
                os.path.isdir(self._paths.root),
                tuple(files),
                rejected,
                total,
                tuple(sorted(strangers)[:_MOST_STRANGERS]),
            )

    def _is_strange(self, name: str) -> bool:
        known = name in (self._paths.bell.name, self._paths.rejected.name) or _LOCK.fullmatch(name)
        return not known and not name.startswith(".")

    def _rejected(self) -> tuple[tuple[Rejection, ...], int]:
        """The newest refusals, and how many there are."""
        try:
            folder = os.open(self._paths.rejected, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            self._reasons = {}
            return (), 0
        try:
            stamped = [
                (int(found[1]), entry.name) for entry in _entries(folder) if (found := _REASON.fullmatch(entry.name))
            ]
            newest = [name for _, name in sorted(stamped, reverse=True)[:_MOST_REASONS]]
            self._reasons = {name: self._reason(folder, name) for name in newest}
        finally:
            os.close(folder)
        return tuple(reason for reason in self._reasons.values() if reason is not None), len(stamped)

    def _reason(self, folder: int, name: str) -> Rejection | None:
        known = self._reasons.get(name)
        if known is not None:
            return known
        content = read_small(name, _REASON_BYTES, follow=False, folder=folder)
        return None if content is None else parsed(content, Rejection)


def _entries(folder: os.PathLike[str] | int) -> Iterator[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as entries:
        yield from islice(entries, _MOST_NAMES)


def _file(entry: os.DirEntry[str]) -> ExchangeFile | None:
    """A regular file with a name of the protocol."""
    name = ExchangePaths.name(entry.name)
    if name is None:
        return None
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return ExchangeFile(entry.name, name.kind, name.round, name.client, found.st_size, found.st_mtime)
