"""`exchange/rejected/`: files that were refused, moved out of the way, each refusal with its reason."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fccl.files import storage_errors, write_text
from fccl.paths import ExchangePaths
from fccl.specs import Value


class Rejection(Value):
    """`<stamp>_reason.json` in `rejected/`: what was refused, and why."""

    time: float
    run_id: str
    round: int
    client_id: int | None  # whose answer the file names said it was
    files: tuple[str, ...]  # their names in the exchange directory; here each begins with the stamp
    reason: str


@dataclass
class RejectedFolder:
    """Moves refused files and counts the refusals of this process."""

    paths: ExchangePaths
    rejections: list[Rejection] = field(default_factory=list)

    def refuse(self, files: Sequence[Path], reason: str, run_id: str, round_number: int, client_id: int | None = None) -> Rejection:
        """Move the files that are there, in the order given, and say why. Raises `StorageError`."""
        folder, stamp = self.paths.rejected, f"{time.time_ns()}"
        with storage_errors(folder):
            if folder.is_symlink():
                folder.unlink()  # it must not lead anything out of the directory
            folder.mkdir(exist_ok=True)
        moved = tuple(path.name.encode("utf-8", "replace").decode() for path in files if self._move(path, self.paths.kept_as(stamp, path.name)))
        rejection = Rejection(time=time.time(), run_id=run_id, round=round_number, client_id=client_id, files=moved, reason=reason)
        write_text(self.paths.rejection(stamp), rejection.model_dump_json() + "\n")
        self.rejections.append(rejection)
        return rejection

    def _move(self, path: Path, to: Path) -> bool:
        with storage_errors(path, "move"):
            try:
                os.rename(path, to)  # a link moves as a link
            except FileNotFoundError:
                return False
        return True
