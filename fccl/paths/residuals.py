"""A client's folder of what it has left out of its updates (`UPDATE_CODEC=int3` and `topk`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fccl.paths.names import ADAPTER

_RESIDUAL = re.compile(rf"residual_([0-9a-f]{{16}})_(sft|va)_(0|[1-9][0-9]{{0,8}}){re.escape(ADAPTER)}")


@dataclass(frozen=True)
class ResidualPaths:
    """One client's folder of what it has left out of its updates. A run is named by 16 hex digits."""

    root: Path

    def residual(self, run: str, phase: str, round_number: int) -> Path:
        return self.root / f"residual_{run}_{phase}_{round_number}{ADAPTER}"

    def rounds(self, run: str, phase: str) -> list[int]:
        """The rounds of this run and phase whose residuals are there."""
        return [number for whose, when, number, _ in self._found() if (whose, when) == (run, phase)]

    def of_other_runs(self, run: str) -> list[Path]:
        """The residuals of every other run."""
        return [path for whose, _, _, path in self._found() if whose != run]

    def _found(self) -> list[tuple[str, str, int, Path]]:
        names = ((_RESIDUAL.fullmatch(path.name), path) for path in self.root.glob("residual_*"))
        return [(found[1], found[2], int(found[3]), path) for found, path in names if found]
