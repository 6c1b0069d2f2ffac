"""`ProductRule`: a rule for the LoRA factors of a weighted mean, whatever rule decides on the weights."""

from __future__ import annotations

from typing import ClassVar

from fccl.aggregation.fedavg import FedAvg
from fccl.aggregation.geometric_median import GeometricMedian
from fccl.aggregation.krum import Krum, MultiKrum
from fccl.aggregation.protocol import Stateless


class ProductRule(Stateless):
    """A subclass makes factors of the updates' products B A, weighted as `weighing` says."""

    is_mean: ClassVar[bool] = True
    weighing: FedAvg | Krum | MultiKrum | GeometricMedian = FedAvg()

    @property
    def uses_weights(self) -> bool:
        return self.weighing.uses_weights

    def require(self, updates: int) -> None:
        self.weighing.require(updates)
