"""Exact aggregation of LoRA: the mean of the products B A, of which the product of the mean factors is only a guess.

A client trains B (fan_out, r) and A (r, fan_in) of every target module; what it means is ΔW = (lora_alpha / r) B A, for
`Linear` and, transposed, for GPT-2's `Conv1D`. PEFT keeps the factors of both in this layout, so nothing here depends
on the kind. lora_alpha / r is one number for the whole federation, whatever rank a client trains, and so it cancels in
everything below.

The singular value decomposition of P = sum_i w_i B_i A_i orders its directions by strength. The next adapter keeps them
in that order, so its first k are its best part of rank k (Eckart & Young 1936), whatever k is:

    svd     keeps the rank r of the federation: the best approximation of P of that rank (FlexLoRA, Bai et al. 2024)
    exact   keeps all of P: clients train its first r directions, the others stand frozen behind them (cf. FedEx-LoRA,
    Singhal et al. 2025)

Whoever trains k directions of a wider adapter trains the first k and has the others in its frozen base model
(`fccl.adapters.ranks`). What it sends back says
nothing against those, so in P they count as if it had sent them back unchanged.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import WithFrozen, leading, pairs
from fccl.aggregation.lora_products import ProductSum, mean_products
from fccl.aggregation.product_rule import ProductRule
from fccl.aggregation.protocol import Aggregated, Aggregation, Parts, is_mean
from fccl.aggregation.state import ServerState
from fccl.aggregation.vectors import finite_adapter
from fccl.errors import UpdateRejected

MEASURED_CLIENTS = 20  # updates in a round, up to which the error of averaging LoRA factors is measured
CUT = 1e-7  # of a module's largest singular value: what is below is lost in float32's rounding of the largest


class LoraMean(ProductRule):
    """The mean of the products, as factors again: the best of rank `lora_r` (`svd`), or all of it (`exact`).

    Updates may have any rank up to that of the adapter before. Of each direction A has the right singular vector, and B
    the left one times the singular value. A stays of the size that it is drawn with, so a direction of no strength can
    still be learnt, as in a fresh LoRA. With the value's root on both sides neither factor of such a direction would
    ever have a gradient.
    """

    name: Literal["svd", "exact"]
    lora_r: int = Field(ge=1)  # directions that clients train; one of less rank trains the first of them

    def aggregate(self, before: Adapter, parts: Parts, state: ServerState) -> Aggregated:
        trained = leading(before, self.lora_r)
        alike = [update if update.form == trained.form else WithFrozen(update, trained) for update in parts.updates]
        weights = self.weighing.weigh(trained, Parts(parts.weights, alike))
        factors = {
            pair: self._factors(product) for pair, product in mean_products(before, Parts(weights, parts.updates))
        }
        rank = max(self.lora_r, *(len(a) for _, a in factors.values()))
        tensors = {}
        for pair, (b, a) in factors.items():  # one rank for all modules, as PEFT has it
            tensors[pair.b] = nn.functional.pad(b, (0, rank - b.shape[1]))
            tensors[pair.a] = torch.cat([a, _spare_rows(before.tensors[pair.a], len(a), rank)])
        return Aggregated(finite_adapter(tensors, self.name), state, weights)

    def _factors(self, product: ProductSum) -> tuple[Tensor, Tensor]:
        """B (fan_out, k) and A (k, fan_in), rounded to float32 once."""
        left, values, right = product.decomposed()
        keep = max(self.lora_r, int((values > CUT * values[0]).sum())) if self.name == "exact" else self.lora_r
        return (left[:, :keep] * values[:keep]).float(), right[:keep].float()


def product_error(before: Adapter, parts: Parts, after: Adapter) -> float | None:
    """‖P - B A‖ / ‖P‖, in the Frobenius norm over all modules: P the exact mean of the products, B and A the factors of
    `after`.

    None where that means nothing: P is zero, or the adapters are no LoRA factors. Raises `AdapterError` when an update
    does not fit `before`.
    """
    if not any(".lora_A." in name for name in before.form.shapes):
        return None
    error, norm = 0.0, 0.0
    for pair, product in mean_products(before, parts):
        whole, apart = product.norm_and_distance(after.tensors[pair.b], after.tensors[pair.a])
        norm, error = norm + whole**2, error + apart**2
    return math.sqrt(error / norm) if norm > 0 else None


def lora_error(rule: Aggregation, before: Adapter, parts: Parts, aggregated: Aggregated) -> float | None:
    """`product_error` of a rule whose result stands for a weighted mean of the updates; the others do not mean to be
    near it.

    It costs about 15 ms a client for an adapter of GPT-2's size: beyond `MEASURED_CLIENTS` it is left out.
    """
    if aggregated.weights is None or len(parts) > MEASURED_CLIENTS or not is_mean(rule):
        return None
    return product_error(before, Parts(aggregated.weights, parts.updates), aggregated.adapter)


def require_frozen_a(before: Adapter, update: Adapter) -> None:
    """FFA-LoRA (Sun et al. 2024): clients train B alone, and with one A for all the mean of B is exact.

    Raises `UpdateRejected` when an update has another A than it was given.
    """
    for pair in pairs(before.form):
        if not torch.equal(before.tensors[pair.a], update.tensors[pair.a]):
            raise UpdateRejected(f"the update has another {pair.a}, which LORA_AGGREGATION=freeze_a leaves alone")


def _spare_rows(before: Tensor, have: int, want: int) -> Tensor:
    """Rows of A for directions that the products do not fill: those of the adapter before, where it has them, so that
    they can still be learnt.
    """
    rows = torch.zeros(want - have, before.shape[1])
    kept = before[have:want]
    rows[: len(kept)] = kept
    return rows
