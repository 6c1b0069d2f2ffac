"""Another computation in the place of a frozen linear layer's product, under autograd (the generic engine's).

The layer itself stays, with its name, so that PEFT wraps it and adapters have the names that they had.

Shapes: any leading ones, then the channels of the layer: (…, in) -> (…, out).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fccl.model.frozen_weight import FrozenWeight


def frozen_linears(model: PreTrainedModel) -> list[nn.Linear | Conv1D]:
    """The frozen linear layers of a model, all but its head.

    LoRA's own factors are trained and stay as they are. So do subclasses of linear layers, such as routers, which may
    compute something else than their weight's product.
    """
    head = model.get_output_embeddings()
    kept = getattr(head, "base_layer", head)
    return [
        layer
        for layer in model.modules()
        if type(layer) in (nn.Linear, Conv1D) and layer is not kept and not layer.weight.requires_grad
    ]


def compute_by(layer: nn.Linear | Conv1D, frozen: FrozenWeight) -> None:
    """Let a layer answer, and send gradients back, by this map of rows."""
    layer.forward = partial(_forward, frozen)  # type: ignore[method-assign]


def _forward(frozen: FrozenWeight, x: Tensor) -> Tensor:
    """The product of a batch: (…, in) -> (…, out)."""
    return _Product.apply(x, frozen)  # type: ignore[no-any-return, no-untyped-call]


class _Product(torch.autograd.Function):
    """x W + c, whose gradient is d_y Wᵀ. Nothing is kept of x, since W is not trained."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, frozen: FrozenWeight) -> Tensor:
        ctx.frozen = frozen
        return _by_rows(frozen, x)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, None]:
        return _by_rows(ctx.frozen.back, d_y), None


def _by_rows(product: Any, x: Tensor) -> Tensor:
    """A product of rows, (T, k) -> (T, n), of a tensor with any leading shape: (…, k) -> (…, n)."""
    found: Tensor = product(x.reshape(-1, x.shape[-1]))
    return found.view(*x.shape[:-1], -1)
