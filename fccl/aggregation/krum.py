"""Krum and multi-Krum: only updates that have many others near them count."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from fccl.adapters.adapter import Adapter
from fccl.aggregation.protocol import Parts, Reweighing, require_updates
from fccl.aggregation.vectors import gram, squared_distances


class _ByNeighbours(Reweighing):
    """The score of an update is the sum of its squared distances to the n - f - 2 nearest others; it takes n >= 2f + 3.
    Ignores the weights.
    """

    max_bad_clients: int = Field(default=1, ge=0)  # f
    uses_weights: ClassVar[bool] = False

    def require(self, updates: int) -> None:
        require_updates(updates, 2 * self.max_bad_clients + 3, self.name, f"MAX_BAD_CLIENTS={self.max_bad_clients}")

    def ranking(self, before: Adapter, parts: Parts) -> list[int]:
        """The places of all updates, the least score first; of equal scores the first client's."""
        self.require(len(parts))
        scores = krum_scores(squared_distances(gram(before, parts)), self.max_bad_clients)
        return sorted(range(len(parts)), key=lambda index: (scores[index], index))


class Krum(_ByNeighbours):
    """The one update with the least score (Blanchard et al. 2017)."""

    name: Literal["krum"] = "krum"

    def weigh(self, before: Adapter, parts: Parts) -> tuple[float, ...]:
        return _equally(self.ranking(before, parts)[:1], len(parts))


class MultiKrum(_ByNeighbours):
    """The plain mean of the m updates with the least scores (Blanchard et al. 2017): m = n - f unless `krum_keep` says
    otherwise.
    """

    name: Literal["multi_krum"] = "multi_krum"
    krum_keep: int = Field(default=0, ge=0)  # m; 0: n - f

    def require(self, updates: int) -> None:
        super().require(updates)
        require_updates(updates, self.krum_keep, self.name, f"KRUM_KEEP={self.krum_keep}")

    def weigh(self, before: Adapter, parts: Parts) -> tuple[float, ...]:
        keep = self.krum_keep or len(parts) - self.max_bad_clients
        return _equally(self.ranking(before, parts)[:keep], len(parts))


def krum_scores(distances: Tensor, max_bad: int) -> list[float]:
    """The sum of each row's n - f - 2 smallest squared distances, its own zero left out: (n, n) -> n numbers."""
    others = distances.clone().fill_diagonal_(torch.inf).sort(dim=1).values
    return [float(score) for score in others[:, : len(distances) - max_bad - 2].sum(dim=1)]


def _equally(chosen: list[int], clients: int) -> tuple[float, ...]:
    return tuple(1 / len(chosen) if index in chosen else 0.0 for index in range(clients))
