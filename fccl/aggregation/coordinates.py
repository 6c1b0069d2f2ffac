"""Coordinate-wise rules: every value of the next adapter depends on that value of all updates, and on nothing else."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from fccl.adapters.adapter import Adapter
from fccl.aggregation.protocol import Aggregated, Parts, Stateless, require_updates
from fccl.aggregation.state import ServerState
from fccl.aggregation.vectors import blocks, size, tiles, unflat


class _ByCoordinate(Stateless):
    """Sorts the n values of every coordinate and takes one number of them. Ignores the weights."""

    uses_weights: ClassVar[bool] = False

    @abstractmethod
    def centre(self, ordered: NDArray[np.float32]) -> NDArray[np.float64]:
        """(width, n), each row ascending -> (width,)."""

    def aggregate(self, before: Adapter, parts: Parts, state: ServerState) -> Aggregated:
        parts.require_form(before.form)
        result = np.empty(size(before.form))
        for where, block in blocks(parts, before.form):
            for tile in tiles(block):
                ordered = np.ascontiguousarray(block[:, tile].numpy().T)
                ordered.sort(axis=1)
                result[where][tile] = self.centre(ordered)
        return Aggregated(unflat(torch.from_numpy(result), before.form, self.name), state, None)


class Median(_ByCoordinate):
    """The median of every coordinate, the middle of the two middle ones when n is even (Yin et al. 2018).

    Withstands fewer than n/2 bad updates.
    """

    name: Literal["median"] = "median"

    def centre(self, ordered: NDArray[np.float32]) -> NDArray[np.float64]:
        clients = ordered.shape[1]
        return (ordered[:, (clients - 1) // 2].astype(np.float64) + ordered[:, clients // 2]) / 2


class TrimmedMean(_ByCoordinate):
    """The mean of every coordinate without its f smallest and f largest values (Yin et al. 2018, β = f/n).

    Withstands f bad updates; n >= 2f + 1.
    """

    name: Literal["trimmed_mean"] = "trimmed_mean"
    max_bad_clients: int = Field(default=1, ge=0)  # f

    def require(self, updates: int) -> None:
        require_updates(updates, 2 * self.max_bad_clients + 1, self.name, f"MAX_BAD_CLIENTS={self.max_bad_clients}")

    def aggregate(self, before: Adapter, parts: Parts, state: ServerState) -> Aggregated:
        self.require(len(parts))
        return super().aggregate(before, parts, state)

    def centre(self, ordered: NDArray[np.float32]) -> NDArray[np.float64]:
        kept = ordered[:, self.max_bad_clients : ordered.shape[1] - self.max_bad_clients]
        return np.asarray(kept.mean(axis=1, dtype=np.float64))
