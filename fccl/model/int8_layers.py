"""The generic engine's frozen linear layers in int8, by the products of `fccl.model.frozen_weight`, under autograd.

Only what a linear layer computes is put in another's place. The layer itself stays, with its name and its float32
weights, so that PEFT wraps it, exports read it and frozen directions go into it as before.

Shapes: any leading ones, then the channels of the layer: (…, in) -> (…, out).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fccl.model.frozen_weight import FrozenWeight, Int8


def compute_in_int8(model: PreTrainedModel) -> int:
    """Let the frozen linear layers of a model compute in int8, all but its head. Returns how many there are.

    LoRA's own factors are trained and stay as they are. So do subclasses of linear layers, such as routers, which may
    compute something else than their weight's product.
    """
    head = model.get_output_embeddings()
    kept = getattr(head, "base_layer", head)
    layers = [
        layer
        for layer in model.modules()
        if type(layer) in (nn.Linear, Conv1D) and layer is not kept and not layer.weight.requires_grad
    ]
    for layer in layers:
        layer.forward = partial(_forward, _frozen(layer))
    return len(layers)


def _frozen(layer: nn.Linear | Conv1D) -> FrozenWeight:
    """The layer's map. Its W is a view of the layer's weight, so that it sees when somebody writes to it."""
    weight = layer.weight.detach()
    weight = weight if isinstance(layer, Conv1D) else weight.T  # (in, out)
    bias = torch.zeros(weight.shape[1]) if layer.bias is None else layer.bias.detach()
    return Int8(weight, bias)


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
