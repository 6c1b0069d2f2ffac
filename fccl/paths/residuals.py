"""A client's folder of what it has left out of its updates (`UPDATE_CODEC=int3` and `topk`)."""

from __future__ import annotations

from typing import ClassVar

from fccl.paths.by_round import ByRoundPaths


class ResidualPaths(ByRoundPaths):
    """One client's folder of what it has left out of its updates."""

    kind: ClassVar[str] = "residual"
