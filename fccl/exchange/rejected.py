"""`exchange/rejected/`: files that were refused and things that were in the way, moved aside, each with its reason."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints

from fccl.errors import StorageError
from fccl.files import storage_errors, write_bytes, write_text
from fccl.paths import ExchangePaths
from fccl.plain_text import printable
from fccl.reading import is_in_the_way, is_own_folder, is_there
from fccl.specs import ClientId, Round, Time, Value

_TRIES = 3  # somebody may put the next thing in the way at once
_MAX_REASON = 1000  # characters


class Rejection(Value):
    """`<stamp>_reason.json` in `rejected/`: what was refused, and why."""

    time: Time
    run_id: str
    round: Round
    client_id: ClientId | None  # whose answer the file names said it was
    files: tuple[Annotated[str, StringConstraints(max_length=255)], ...]  # their names in the exchange directory; here each begins with the stamp
    reason: Annotated[str, StringConstraints(max_length=_MAX_REASON)]


@dataclass
class RejectedFolder:
    """Moves aside what does not belong in the exchange directory, and counts what this process has refused."""

    paths: ExchangePaths
    rejections: list[Rejection] = field(default_factory=list)

    def refuse(self, files: Sequence[Path], reason: str, run_id: str, round_number: int, client_id: int | None = None) -> Rejection:
        """Move the files that are there, in the order given, and say why. Raises `StorageError`."""
        stamp = self._made()
        moved = tuple(printable(path.name, 255) for path in files if self._move(path, self.paths.kept_as(stamp, path.name)))
        why = printable(reason, _MAX_REASON)
        rejection = Rejection(time=time.time(), run_id=run_id, round=round_number, client_id=client_id, files=moved, reason=why)
        write_text(self.paths.rejection(stamp), rejection.model_dump_json() + "\n")
        self.rejections.append(rejection)
        return rejection

    def clear_for_file(self, path: Path, run_id: str = "", round_number: int = 0, client_id: int | None = None) -> None:
        """Move what is where a file belongs and is none: a folder, link, pipe, socket or device. Raises `StorageError`."""
        if is_in_the_way(path):
            self.refuse([path], "something else where a file belongs", run_id, round_number, client_id)

    def clear_for_folder(self, path: Path) -> None:
        """Move what is where a folder belongs and is none; a link to one is none either: it leads elsewhere. Raises `StorageError`."""
        if not is_own_folder(path) and is_there(path):
            self.refuse([path], "something else where a folder belongs", "", 0)

    def write(self, path: Path, content: bytes | bytearray, run_id: str = "", round_number: int = 0, client_id: int | None = None) -> None:
        """`write_bytes` to where something else may be in the way. Raises `StorageError`."""
        for left in reversed(range(_TRIES)):
            self.clear_for_file(path, run_id, round_number, client_id)
            try:
                write_bytes(path, content)
                return
            except StorageError as error:
                if not left or not isinstance(error.__cause__, IsADirectoryError):
                    raise

    def _made(self) -> str:
        """See that the folder is there, and nothing else in its place. Returns the stamp of what is moved next."""
        folder, stamp = self.paths.rejected, f"{time.time_ns()}"
        aside = folder.with_name(f".{folder.name}.{stamp}.tmp")
        with storage_errors(folder):
            in_the_way = is_there(folder) and not is_own_folder(folder)  # it must not lead anything out of the directory
            moved = in_the_way and self._move(folder, aside)
            folder.mkdir(parents=True, exist_ok=True)
        if moved:
            self._move(aside, self.paths.kept_as(stamp, folder.name))
            return self._made()
        return stamp

    def _move(self, path: Path, to: Path) -> bool:
        with storage_errors(path, "move"):
            try:
                os.rename(path, to)  # a link moves as a link
            except FileNotFoundError:
                return False
        return True
