"""Which answers the server has begun to read, noted where only it writes: one that ends the process is not met again
when it starts anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fccl.errors import FcclError
from fccl.paths import ExchangePaths
from fccl.storage.files import storage_errors

Flag = tuple[int, ...]  # what identifies the flag that commits an answer: another one with every answer


@dataclass(frozen=True)
class BegunReadings:
    """One small file for each answer, with the flag's own name in `folder`; a line for each time that its reading was
    begun and not ended.

    The lines are not flushed to the disk: they have to outlive the process, not the machine.
    """

    folder: Path
    paths: ExchangePaths

    @contextmanager
    def reading(self, client_id: int, round_number: int, flag: Flag) -> Iterator[None]:
        """Note that an answer is being read.

        What ends the process in the block, or is no error of ours, leaves the note.
        """
        note = self._note(client_id, round_number)
        with storage_errors(note), open(note, "a", encoding="ascii") as file:
            file.write(" ".join(map(str, flag)) + "\n")
        try:
            yield
        except (FcclError, KeyboardInterrupt):  # the answer is not to blame, or the caller deals with it
            self._forget(note)
            raise
        self._forget(note)

    def unended(self, client_id: int, round_number: int) -> list[Flag]:
        """The flags of a client's answers to a round whose reading ended the server, the oldest first."""
        found: list[Flag] = []
        with (
            suppress(FileNotFoundError, ValueError),
            open(self._note(client_id, round_number), encoding="ascii") as lines,
        ):
            for line in lines:
                found.append(tuple(map(int, line.split())))
        return found

    def is_of(self, path: Path, round_number: int) -> bool:
        """Whether a file in the folder is such a note, of this round."""
        name = self.paths.name(path.name)
        return name is not None and (name.kind, name.round) == ("flag", round_number)

    def _note(self, client_id: int, round_number: int) -> Path:
        return self.folder / self.paths.flag(client_id, round_number).name

    def _forget(self, note: Path) -> None:
        with storage_errors(note, "remove"):
            note.unlink(missing_ok=True)
