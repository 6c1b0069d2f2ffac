"""A client's memory over restarts: the newest of its server's signed rounds that it has answered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fccl.display.plain_text import printable
from fccl.errors import StorageError, UpdateRejected
from fccl.specs import Round, RunId, Time, Value, exactly
from fccl.storage.files import write_text
from fccl.storage.private import private_folder
from fccl.storage.reading import parse, read_bounded
from fccl.transports.exchange.wire import RequestFile, TaskFile

_MOST_BYTES = 4096


class Answered(Value):
    """`answered.json`: a round that the client has answered, and whose it was.

    Of two runs, the later created is newer.
    """

    version: Annotated[int, exactly(1)] = 1
    server: str  # its public key: rounds of another server are in no order with these
    run_id: RunId
    run_created: Time  # seconds since 1970 by the server's clock
    round: Round


@dataclass
class Memory:
    """Tells rounds that are older than what the client has answered.

    For signed rounds only: anybody can make up others.
    """

    path: Path
    server: str
    newest: Answered | None = None

    def recall(self) -> None:
        """Read what an earlier process has noted, if one has. Raises `StorageError` when the file is damaged."""
        try:
            found = parse(read_bounded(self.path, _MOST_BYTES), Answered, self.path.name)
        except UpdateRejected as error:
            if not self.path.exists() and not self.path.is_symlink():
                return
            raise StorageError(
                f"cannot tell from {self.path.parent} which rounds were answered: {error}",
                hint=f"delete {self.path}: then the client begins without",
            ) from error
        self.newest = found if found.server == self.server else None

    def require_not_older(self, task: TaskFile | RequestFile) -> None:
        """Raises `UpdateRejected` for a round, or an end, before the newest answered.

        That one may be asked for again.
        """
        known = self.newest
        if known is None:
            return
        same = task.run_id == known.run_id
        if task.round < known.round if same else task.run_created < known.run_created:
            newer = f"round {known.round + 1} of this run" if same else f"run {printable(known.run_id)}, created later"
            way_out = f"if the server was set back on purpose, delete {self.path} and start the client again"
            raise UpdateRejected(f"this client has answered {newer}; {way_out}")

    def note(self, task: TaskFile | RequestFile) -> None:
        """Remember an answer before it is committed: killed in between, the client answers again.

        A folder that was deleted meanwhile is made anew, as private as it was. Raises `StorageError`.
        """
        noted = Answered(server=self.server, run_id=task.run_id, run_created=task.run_created, round=task.round)
        if noted != self.newest or not self.path.exists():
            private_folder(self.path.parent)
            write_text(self.path, noted.model_dump_json() + "\n")
            self.newest = noted
