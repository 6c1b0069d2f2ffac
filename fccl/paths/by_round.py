"""A client's adapters that are known by run, phase and round, each kind in names of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from fccl.paths.names import ADAPTER


@dataclass(frozen=True)
class ByRoundPaths:
    """One client's folder of such adapters. A run is named by 16 hex digits (`run_digits`)."""

    root: Path
    kind: ClassVar[str]

    def adapter(self, run: str, phase: str, round_number: int) -> Path:
        return self.root / f"{self.kind}_{run}_{phase}_{round_number}{ADAPTER}"

    def rounds(self, run: str, phase: str) -> list[int]:
        """The rounds of this run and phase whose adapters are there."""
        return [number for whose, when, number, _ in self._found() if (whose, when) == (run, phase)]

    def of_run(self, run: str) -> list[Path]:
        """The adapters of this run."""
        return [path for whose, _, _, path in self._found() if whose == run]

    def of_other_runs(self, run: str) -> list[Path]:
        """The adapters of every other run."""
        return [path for whose, _, _, path in self._found() if whose != run]

    def _found(self) -> Iterator[tuple[str, str, int, Path]]:
        named = re.compile(rf"{self.kind}_([0-9a-f]{{16}})_(sft|va)_(0|[1-9][0-9]{{0,8}}){re.escape(ADAPTER)}")
        for path in self.root.glob(f"{self.kind}_*"):
            if found := named.fullmatch(path.name):
                yield found[1], found[2], int(found[3]), path
