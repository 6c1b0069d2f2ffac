"""Notes of the answers that the server has begun to read, where only it writes.

An answer that ends the process is then not read again when the server starts anew.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fccl.errors import FcclError
from fccl.paths import ExchangePaths
from fccl.storage.files import storage_errors

Flag = tuple[int, ...]  # what identifies the flag that commits an answer: another one with every answer


@dataclass(frozen=True)
class BegunReadings:
    """One small file for each answer in `folder`, named like the file that commits it; a line for each time that its
    reading was begun and not ended.

    The lines are not flushed to the disk: they have to outlive the process, not the machine.
    """

    folder: Path
    paths: ExchangePaths

    @contextmanager
    def reading(self, name: str, flag: Flag) -> Iterator[None]:
        """Note that the answer that the file `name` commits is being read.

        What ends the process in the block, or is not an error of ours, leaves the note.
        """
        note = self.folder / name
        with storage_errors(note):
            descriptor = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            try:
                os.write(descriptor, " ".join(map(str, flag)).encode() + b"\n")
            finally:
                os.close(descriptor)
        try:
            yield
        except (FcclError, KeyboardInterrupt):  # the answer is not to blame, or the caller deals with it
            self._forget(note)
            raise
        self._forget(note)

    def unended(self, name: str) -> list[Flag]:
        """The identities of this file whose reading ended the server, the oldest first."""
        found: list[Flag] = []
        with suppress(FileNotFoundError, ValueError), open(self.folder / name, encoding="ascii") as lines:
            for line in lines:
                found.append(tuple(map(int, line.split())))
        return found

    def is_of(self, path: Path, rounds: Container[int]) -> bool:
        """Whether a file in the folder is such a note, of one of these rounds."""
        name = self.paths.name(path.name)
        return name is not None and name.kind in ("flag", "reply") and name.round in rounds

    def _forget(self, note: Path) -> None:
        with storage_errors(note, "remove"):
            note.unlink(missing_ok=True)
