"""What a client knows when it is started again: the newest of its server's signed rounds that it has answered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from fccl.errors import StorageError, UpdateRejected
from fccl.exchange.wire import RunId, TaskFile
from fccl.files import write_text
from fccl.reading import parse, printable, read_bounded
from fccl.specs import Value

_MOST_BYTES = 4096


class Answered(Value):
    """`answered.json`: a round that the client has answered, and whose it was. Runs follow each other in the order in which they were created."""

    version: Literal[1] = 1
    server: str  # its public key: rounds of another server are in no order with these
    run_id: RunId
    run_created: float = Field(ge=0)  # seconds since 1970 by the server's clock
    round: int = Field(ge=0)


@dataclass
class Memory:
    """Tells a round that is older than what the client has answered. Only signed rounds can be told: anybody makes up one that is not."""

    path: Path
    server: str
    newest: Answered | None = None

    def recall(self) -> None:
        """Read what an earlier process has noted. Raises `StorageError` when the file is damaged; one that is missing is no memory."""
        try:
            found = parse(read_bounded(self.path, _MOST_BYTES), Answered, self.path.name)
        except UpdateRejected as error:
            if not self.path.exists() and not self.path.is_symlink():
                return
            raise StorageError(
                f"cannot tell from {self.path.parent} which rounds were answered: {error}", hint=f"delete {self.path}: then the client begins without"
            ) from error
        self.newest = found if found.server == self.server else None

    def require_not_older(self, task: TaskFile) -> None:
        """Raises `UpdateRejected` for a round, or an end, from before the newest round that was answered. That one may be asked for again."""
        known = self.newest
        if known is None:
            return
        if task.run_id == known.run_id:
            older, what = task.round < known.round, f"this client has answered round {known.round + 1} of this run"
        else:
            older, what = task.run_created < known.run_created, f"this client has answered run {printable(known.run_id)}, which was created later"
        if older:
            raise UpdateRejected(f"{what}; if the server was set back on purpose, delete {self.path} and start the client again")

    def note(self, task: TaskFile) -> None:
        """Remember an answer before it is committed: killed in between, the client answers the same round again. Raises `StorageError`."""
        noted = Answered(server=self.server, run_id=task.run_id, run_created=task.run_created, round=task.round)
        if noted != self.newest:
            write_text(self.path, noted.model_dump_json() + "\n")
            self.newest = noted
