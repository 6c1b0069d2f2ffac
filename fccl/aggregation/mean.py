"""The weighted mean of adapters."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from fccl.adapters.adapter import Adapter, Form


def weighted_mean(parts: Iterable[tuple[float, Adapter]]) -> Adapter:
    """sum_i w_i u_i, tensor by tensor, summed in float64 in the order given and rounded once.

    Reads `parts` one at a time and keeps none, so the memory does not grow with the number of clients. Raises
    `AdapterError` when two adapters have different tensors, `ValueError` unless the weights are >= 0 with sum 1.
    """
    form: Form | None = None
    sums: dict[str, Tensor] = {}
    weights = []
    for weight, adapter in parts:
        if form is None:
            form = adapter.form
            sums = {name: torch.zeros(tensor.shape, dtype=torch.float64) for name, tensor in adapter.tensors.items()}
        form.require(adapter.form)
        for name, tensor in adapter.tensors.items():
            sums[name].add_(tensor.double(), alpha=weight)
        weights.append(weight)
    if not (weights and min(weights) >= 0 and abs(math.fsum(weights) - 1) <= 1e-9):  # written so that a NaN fails it
        raise ValueError(f"weights must be >= 0 with sum 1, not {weights}")
    return Adapter({name: total.float() for name, total in sums.items()})
