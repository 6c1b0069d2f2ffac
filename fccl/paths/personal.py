"""A client's folder of its personal adapters (`PERSONALIZE`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fccl.paths.names import ADAPTER

_PERSONAL = re.compile(rf"personal_([0-9a-f]{{16}})_(sft|va)_(0|[1-9][0-9]{{0,8}}){re.escape(ADAPTER)}")


@dataclass(frozen=True)
class PersonalPaths:
    """One client's folder of its personal adapters. A run is named by 16 hex digits."""

    root: Path

    def adapter(self, run: str, phase: str, round_number: int) -> Path:
        return self.root / f"personal_{run}_{phase}_{round_number}{ADAPTER}"

    def record(self, run: str, phase: str) -> Path:
        """The newest personal adapter of a run and phase, and what it is of (`fccl.records.personal`)."""
        return self.root / f"personal_{run}_{phase}.json"

    def rounds(self, run: str, phase: str) -> list[int]:
        """The rounds of this run and phase whose personal adapters are there."""
        names = (_PERSONAL.fullmatch(path.name) for path in self.root.glob(f"personal_{run}_{phase}_*"))
        return [int(found[3]) for found in names if found]

    def records(self) -> list[Path]:
        """The records of all runs."""
        return sorted(self.root.glob("personal_*.json"))
