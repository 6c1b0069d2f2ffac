"""`exchange/rejected/`: files that were refused and things that were in the way, moved aside, each with its reason."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from fccl.display.plain_text import printable
from fccl.errors import StorageError
from fccl.paths import ExchangePaths
from fccl.records.rejection import MAX_REJECTION_REASON, Rejection
from fccl.storage.files import storage_errors, write_bytes, write_text
from fccl.storage.reading import is_in_the_way, is_no_folder, is_own_folder, is_there

_TRIES = 10  # somebody may put the next thing in the way at once
_CAME_BETWEEN = frozenset(
    {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTEMPTY}
)
Made = TypeVar("Made")


@dataclass
class Quarantine:
    """Moves aside what does not belong in the exchange directory, and counts what this process has refused."""

    paths: ExchangePaths
    rejections: list[Rejection] = field(default_factory=list)

    def refuse(
        self, files: Sequence[Path], reason: str, run_id: str, round_number: int, client_id: int | None = None
    ) -> Rejection:
        """Move the files that are there, in the order given, and say why. Raises `StorageError`."""
        stamp = f"{time.time_ns()}"
        moved = tuple(
            printable(path.name, 255)
            for path in files
            if self._in_folder(partial(_moved, path, self.paths.kept_as(stamp, path.name)))
        )
        why = printable(reason, MAX_REJECTION_REASON)
        rejection = Rejection(
            time=time.time(), run_id=run_id, round=round_number, client_id=client_id, files=moved, reason=why
        )
        self._in_folder(partial(write_text, self.paths.rejection(stamp), rejection.model_dump_json() + "\n"))
        self.rejections.append(rejection)
        return rejection

    def remove(self, path: Path, run_id: str = "") -> None:
        """Remove a file, be it there or not; a folder in its place is moved. Raises `StorageError`."""

        def try_to() -> None:
            if is_own_folder(path):
                self.refuse([path], "a folder where a file belongs", run_id, 0)
            with storage_errors(path, "remove"):
                path.unlink(missing_ok=True)

        _again(try_to)

    def clear_for_file(self, path: Path, run_id: str = "", round_number: int = 0, client_id: int | None = None) -> None:
        """Move what is where a file belongs and is none: a folder, link, pipe, socket or device.

        Raises `StorageError`.
        """
        if is_in_the_way(path):
            self.refuse([path], "something else where a file belongs", run_id, round_number, client_id)

    def clear_for_folder(self, path: Path) -> None:
        """Move what is where a folder belongs and is none; a link to one is none either: it leads elsewhere.

        Raises `StorageError`.
        """
        if is_no_folder(path):
            self.refuse([path], "something else where a folder belongs", "", 0)

    def write(
        self,
        path: Path,
        content: bytes | bytearray,
        run_id: str = "",
        round_number: int = 0,
        client_id: int | None = None,
    ) -> None:
        """`write_bytes` to where something else may be in the way. Raises `StorageError`."""

        def try_to() -> None:
            self.clear_for_file(path, run_id, round_number, client_id)
            write_bytes(path, content)

        _again(try_to)

    def _in_folder(self, action: Callable[[], Made]) -> Made:
        """The result of an action that needs the folder; tried anew when the folder was taken away or replaced
        meanwhile.
        """

        def try_to() -> Made:
            self._make()
            return action()

        return _again(try_to)

    def _make(self) -> None:
        """See that the folder is there, and nothing else in its place: it must not lead anything out of the
        directory."""
        folder, stamp = self.paths.rejected, f"{time.time_ns()}"
        aside = folder.with_name(f".{folder.name}.{stamp}.tmp")
        moved = is_no_folder(folder) and _moved(folder, aside)
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if moved:
            _moved(aside, self.paths.kept_as(stamp, folder.name))


def _again(action: Callable[[], Made]) -> Made:
    """The result of an action; tried anew when something has come into its way, or gone, between the looking and the
    doing.
    """
    for _ in range(_TRIES - 1):
        try:
            return action()
        except StorageError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in _CAME_BETWEEN:
                raise
    return action()


def _moved(path: Path, to: Path) -> bool:
    """Whether something was there to be moved. Raises `StorageError`, also when the place to move it to has gone."""
    with storage_errors(path, "move"):
        try:
            os.rename(path, to)  # a link moves as a link
        except (FileNotFoundError, NotADirectoryError):
            if is_there(path):
                raise
            return False
    return True
