"""FedAvg, and the server's part of FedProx and SCAFFOLD, which is the same."""

from __future__ import annotations

from typing import ClassVar, Literal

from fccl.adapters.adapter import Adapter
from fccl.aggregation.protocol import Parts, Reweighing


class FedAvg(Reweighing):
    """sum_i w_i u_i (McMahan et al. 2017).

    FedProx (Li et al. 2020) and SCAFFOLD (Karimireddy et al. 2020, server learning rate 1) differ at the clients
    (`fccl.training.drift`); SCAFFOLD's control variates are kept by `fccl.aggregation.scaffold`.
    """

    name: Literal["fedavg", "fedprox", "scaffold"] = "fedavg"
    uses_weights: ClassVar[bool] = True

    def weigh(self, before: Adapter, parts: Parts) -> tuple[float, ...]:
        return tuple(parts.weights)
