"""Updates as they were when they were checked: in memory, or in `LOG_DIR/received/`, which only the server writes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from fccl.adapters.recent import Recent
from fccl.adapters.stored import StoredAdapter
from fccl.display.plain_text import printable
from fccl.keys import PublicKeys
from fccl.messages import ClientFailure, ClientUpdate
from fccl.storage.files import storage_errors
from fccl.storage.reading import is_own_folder, is_there
from fccl.transports.exchange.answers import AnswerReader, GoodFile
from fccl.transports.exchange.begun import BegunReadings
from fccl.transports.exchange.wire import FailureFile


@dataclass(frozen=True)
class Received:
    """The folder. A client cannot change an update in it after it was checked."""

    folder: Path
    begun: BegunReadings  # whose notes lie in it too
    recent: Recent = field(default_factory=Recent)  # those of the open round that are in memory

    def keep(self, name: str, file: GoodFile) -> StoredAdapter:
        """Hold a file that was checked: in memory, and beyond its bound in a new file. Raises `StorageError`."""
        path = self.folder / name
        with storage_errors(path):
            if not self.recent.hold(file.sha256, file.checked):
                path.unlink(missing_ok=True)  # an older one of this name may have other names too
                _write_new(path, file.checked.content)
        return StoredAdapter(path, file.sha256, file.reader, self.recent)

    def make(self) -> None:
        """See that the folder is there. Anything else in its place, or with folders in it, is moved aside."""
        with storage_errors(self.folder):
            if is_there(self.folder) and (
                not os.path.isdir(self.folder) or any(map(is_own_folder, self.folder.iterdir()))
            ):
                self.folder.rename(self.folder.with_name(f"{self.folder.name}-{time.time_ns()}"))  # nobody's updates
            self.folder.mkdir(parents=True, exist_ok=True)

    def empty(self, round_number: int | None = None) -> None:
        """Remove what was received before, but for the notes of readings that this round, or the one before, has begun:
        a late answer may end the server too.
        """
        self.make()
        self.recent.clear()
        with storage_errors(self.folder):
            for path in self.folder.iterdir():
                if round_number is None or not self.begun.is_of(path, (round_number - 1, round_number)):
                    path.unlink()


def _write_new(path: Path, content: bytearray) -> None:
    """Not flushed to the disk: after a crash it is received again. Raises `OSError`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as new:
        new.write(content)


@dataclass(frozen=True)
class FitAnswers:
    """The updates of one open round."""

    reader: AnswerReader
    received: Received
    public: Callable[[], PublicKeys | None]  # as they are now: a key may be revoked while the round is open
    stand_by: Callable[[], object]  # mends the open round

    @property
    def run_id(self) -> str:
        """The run of the round."""
        return self.reader.task.run_id

    @property
    def round(self) -> int:
        """The number of the round."""
        return self.reader.task.round

    def flag(self, client_id: int) -> Path:
        """The flag commits an update and its contribution."""
        return self.reader.paths.flag(client_id, self.round)

    def files(self, client_id: int) -> tuple[Path, ...]:
        """All files of an update, the flag last."""
        return self.reader.paths.taken_away(client_id, self.round)

    def uphold(self) -> None:
        """Publish the round again if its files are not those that were written."""
        self.stand_by()

    def read(self, client_id: int) -> ClientUpdate | ClientFailure:
        """A client's update, kept where only the server writes. Raises `UpdateRejected`."""
        answer = replace(self.reader, public=self.public()).read(client_id)
        task, paths = self.reader.task, self.reader.paths
        if isinstance(answer, FailureFile):
            return ClientFailure(client_id, printable(answer.error), answer.declines)
        control = None
        if answer.control is not None:
            control = self.received.keep(paths.control(client_id, task.round).name, answer.control)
        return ClientUpdate(
            run_id=task.run_id,
            client_id=client_id,
            round=task.round,
            phase="sft" if task.phase == "sft" else "va",
            adapter=self.received.keep(paths.update(client_id, task.round).name, answer.update),
            contribution=answer.contribution,
            report=answer.report,
            control=control,
            signed=answer.signed,
            sent=answer.sent,
            masked=answer.masked,
        )
