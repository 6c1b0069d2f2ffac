"""`LOG_DIR/after/<run id>/`: what was asked about a finished run, and the answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fccl.paths.names import ADAPTER


@dataclass(frozen=True)
class AfterPaths:
    """The answers to questions about one finished run. They lie in no run's folder."""

    root: Path

    def replay(self, name: str) -> Path:
        """The folder of one replay."""
        return self.root / f"replay-{name}"

    def record(self, folder: Path) -> Path:
        """The record in the folder of a replay or of a client that was taken out."""
        return folder / "record.json"

    def final(self, folder: Path) -> Path:
        """The adapter that it ends with."""
        return folder / f"adapter{ADAPTER}"

    @property
    def influence(self) -> Path:
        return self.root / "influence.json"

    @property
    def matrix(self) -> Path:
        return self.root / "matrix.json"

    @property
    def check(self) -> Path:
        """The findings of `fccl verify`, for programs."""
        return self.root / "verify.json"

    @property
    def check_page(self) -> Path:
        """The same for people."""
        return self.root / "verify.md"

    def forgotten(self, client_id: int) -> Path:
        """The folder of a run that went on without a client."""
        return self.root / f"forget-{client_id}"
