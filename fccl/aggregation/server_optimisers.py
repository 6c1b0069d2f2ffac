"""Server optimisers: the weighted mean of the clients' changes is taken as a gradient and given to an optimiser.

Δ = sum_i w_i (u_i - x), x the adapter before. All arithmetic and all state is float64; the adapter is rounded to
float32 once a round.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from fccl.adapters.adapter import Adapter
from fccl.aggregation.protocol import Aggregated, Parts
from fccl.aggregation.state import ServerState
from fccl.aggregation.vectors import flat, mean_delta, size, unflat
from fccl.specs import Value


class _Optimiser(Value):
    """The part that all of them share."""

    uses_weights: ClassVar[bool] = True

    def require(self, updates: int) -> None:
        """Any number will do."""


class FedAvgM(_Optimiser):
    """Server momentum (Hsu et al. 2019): m ← β m + Δ, x ← x + η m."""

    name: Literal["fedavgm"] = "fedavgm"
    server_lr: float = Field(default=1.0, gt=0)  # η
    server_momentum: float = Field(default=0.9, ge=0, lt=1)  # β

    def initial(self, adapter: Adapter) -> ServerState:
        return ServerState({"momentum": torch.zeros(size(adapter.form), dtype=torch.float64)})

    def aggregate(self, before: Adapter, parts: Parts, state: ServerState) -> Aggregated:
        parts.require_form(before.form)
        delta = mean_delta(before, parts)
        momentum = self.server_momentum * state.vector("momentum", len(delta)) + delta
        adapter = unflat(flat(before).double() + self.server_lr * momentum, before.form, self.name)
        return Aggregated(adapter, ServerState({"momentum": momentum}), tuple(parts.weights))


class _Adaptive(_Optimiser):
    """Adaptive federated optimisation (Reddi et al. 2021, algorithm 2).

    m ← β₁ m + (1 - β₁) Δ, then v as each rule says, x ← x + η m / (√v + τ). v starts at τ², the least that the paper
    allows, and there is no bias correction, as in the paper.

    In one round no value moves farther than η under FedAdagrad. Under FedAdam it is η (1 - β₁) / √((1 - β₂)(1 -
    β₁²/β₂)) if β₁² < β₂ (Cauchy-Schwarz, of m against √v): 2.35 η at the defaults, 10 η without momentum. FedYogi stays
    within both.
    """

    name: str
    server_lr: float = Field(default=0.03, gt=0)  # η
    server_momentum: float = Field(default=0.9, ge=0, lt=1)  # β₁
    server_tau: float = Field(default=1e-3, gt=0)  # τ, the degree of adaptivity: the smaller, the more

    @abstractmethod
    def second_moment(self, before: Tensor, square: Tensor) -> Tensor:
        """The next v, from the last one and Δ²."""

    def initial(self, adapter: Adapter) -> ServerState:
        zeros = torch.zeros(size(adapter.form), dtype=torch.float64)
        return ServerState({"momentum": zeros, "second_moment": torch.full_like(zeros, self.server_tau**2)})

    def aggregate(self, before: Adapter, parts: Parts, state: ServerState) -> Aggregated:
        parts.require_form(before.form)
        delta = mean_delta(before, parts)
        momentum = self.server_momentum * state.vector("momentum", len(delta)) + (1 - self.server_momentum) * delta
        second = self.second_moment(state.vector("second_moment", len(delta)), delta.square())
        step = self.server_lr * momentum / (second.sqrt() + self.server_tau)
        adapter = unflat(flat(before).double() + step, before.form, self.name)
        return Aggregated(adapter, ServerState({"momentum": momentum, "second_moment": second}), tuple(parts.weights))


class FedAdagrad(_Adaptive):
    """v ← v + Δ². The paper uses it without momentum."""

    name: Literal["fedadagrad"] = "fedadagrad"
    server_momentum: float = Field(default=0.0, ge=0, lt=1)

    def second_moment(self, before: Tensor, square: Tensor) -> Tensor:
        return before + square


class FedYogi(_Adaptive):
    """v ← v - (1 - β₂) Δ² sign(v - Δ²)."""

    name: Literal["fedyogi"] = "fedyogi"
    server_beta2: float = Field(default=0.99, ge=0, lt=1)  # β₂

    def second_moment(self, before: Tensor, square: Tensor) -> Tensor:
        return before - (1 - self.server_beta2) * square * torch.sign(before - square)


class FedAdam(_Adaptive):
    """v ← β₂ v + (1 - β₂) Δ²."""

    name: Literal["fedadam"] = "fedadam"
    server_beta2: float = Field(default=0.99, ge=0, lt=1)  # β₂

    def second_moment(self, before: Tensor, square: Tensor) -> Tensor:
        return self.server_beta2 * before + (1 - self.server_beta2) * square
