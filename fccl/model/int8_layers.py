"""The generic engine's frozen linear layers in int8, by the products of `fccl.model.frozen_weight`, under autograd.

Only what a linear layer computes is put in another's place. Its float32 weights stay, so that exports read them and
frozen directions go into them as before.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fccl.model.frozen_weight import FrozenWeight, Int8
from fccl.model.layer_products import compute_by, frozen_linears


def compute_in_int8(model: PreTrainedModel) -> int:
    """Let the frozen linear layers of a model compute in int8, all but its head. Returns how many there are."""
    layers = frozen_linears(model)
    for layer in layers:
        compute_by(layer, _frozen(layer))
    return len(layers)


def _frozen(layer: nn.Linear | Conv1D) -> FrozenWeight:
    """The layer's map. Its W is a view of the layer's weight, so that it sees when somebody writes to it."""
    weight = layer.weight.detach()
    weight = weight if isinstance(layer, Conv1D) else weight.T  # (in, out)
    bias = torch.zeros(weight.shape[1]) if layer.bias is None else layer.bias.detach()
    return Int8(weight, bias)
