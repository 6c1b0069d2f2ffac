"""The folder of a kept round."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fccl.paths.names import ADAPTER


@dataclass(frozen=True)
class KeptRoundPaths:
    """A kept round: the updates as they arrived, and what the round began with."""

    root: Path

    @property
    def inputs(self) -> Path:
        return self.root / "round.json"

    @property
    def adapter(self) -> Path:
        """The global adapter that the round began with."""
        return self.root / f"adapter{ADAPTER}"

    @property
    def before(self) -> Path:
        """The adapter that the round before began with, when an update of the round was trained for that one."""
        return self.root / f"before{ADAPTER}"

    @property
    def lag(self) -> Path:
        """The part that UPDATE_CODEC had left out of that adapter."""
        return self.root / f"lag{ADAPTER}"

    @property
    def server_state(self) -> Path:
        """The state of the aggregation rule before the round, when it carried any."""
        return self.root / f"server_state{ADAPTER}"

    def update(self, client_id: int, sha256: str) -> Path:
        return self.root / f"update_{client_id}_{sha256[:16]}{ADAPTER}"

    def control(self, client_id: int, sha256: str) -> Path:
        return self.root / f"control_{client_id}_{sha256[:16]}{ADAPTER}"
