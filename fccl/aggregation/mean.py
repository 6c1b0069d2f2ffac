"""The weighted mean of adapters."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.tensors import TILE


def weighted_mean(parts: Iterable[tuple[float, Adapter]]) -> Adapter:
    """sum_i w_i u_i, summed in float64 in the order given and rounded once.

    Reads `parts` one at a time and keeps none, so the memory does not grow with the number of clients. Raises
    `AdapterError` when two adapters have different tensors, `ValueError` unless the weights are >= 0 with sum 1.
    """
    form: Form | None = None
    total = torch.zeros(0, dtype=torch.float64)
    weights = []
    for weight, adapter in parts:
        if form is None:
            form = adapter.form
            total = torch.zeros(adapter.vector.shape, dtype=torch.float64)  # (d,)
        form.require(adapter.form)
        for sums, numbers in zip(torch.split(total, TILE), torch.split(adapter.vector, TILE), strict=True):
            sums.add_(numbers, alpha=weight)  # widened to float64 first
        weights.append(weight)
    if form is None or not (min(weights) >= 0 and abs(math.fsum(weights) - 1) <= 1e-9):  # so that a NaN fails it
        raise ValueError(f"weights must be >= 0 with sum 1, not {weights}")
    return Adapter.of_vector(total.float(), form)
