"""A client's folder of its personal adapters (`PERSONALIZE`)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from fccl.paths.by_round import ByRoundPaths


class PersonalPaths(ByRoundPaths):
    """One client's folder of its personal adapters."""

    kind: ClassVar[str] = "personal"

    def record(self, run: str, phase: str) -> Path:
        """The newest personal adapter of a run and phase, and what it is of (`fccl.records.personal`)."""
        return self.root / f"{self.kind}_{run}_{phase}.json"

    def records(self) -> list[Path]:
        """The records of all runs."""
        return sorted(self.root.glob(f"{self.kind}_*.json"))
