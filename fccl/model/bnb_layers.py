"""Frozen linear layers in 8 or 4 bits a weight, by bitsandbytes: `BASE_PRECISION=bnb-int8` and `bnb-nf4`.

| | what is kept of a matrix |
|---|---|
| `bnb-int8` | whole numbers from -127 to 127 and a scale for each output channel (Dettmers et al. 2022, LLM.int8()) |
| `bnb-nf4` | one of 16 levels a weight, the quantiles of a normal variable, and a scale for 64 weights (QLoRA, 2023) |

Weights alone are rounded, activations are not. With Ŵ the matrix that the kept numbers stand for, y = x Ŵᵀ + c and
d_x = d_y Ŵ. Ŵ is made for each product and let go after it, so the float32 weights leave the memory.

Matrices are rounded on the CPU whatever the device, so that clients on a CPU and on a GPU have the same Ŵ. On a GPU a
product rounds x and Ŵ to bfloat16; on a CPU it is float32.

Shapes: T tokens, W (out, in), c (out,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from fccl.model.layer_products import compute_by, frozen_linears
from fccl.specs import BasePrecision

BLOCK = 64  # weights that share a scale in nf4


def library() -> Any:
    """bitsandbytes' functions."""
    from bitsandbytes import functional as found

    return found


class Quantised(nn.Module, ABC):
    """A frozen linear map in few bits (`fccl.model.frozen_weight.FrozenWeight`), beside directions that are not.

    The trailing directions of a wide adapter stand beside the matrix in float32: Ŵ + b a, with b (out, k), a (k, in).
    To round their sum again would change what all the other directions multiply.
    """

    bias: Tensor | None
    b: Tensor | None
    a: Tensor | None

    def __init__(self, bias: Tensor | None) -> None:
        super().__init__()
        for name, value in (("bias", bias), ("b", None), ("a", None)):
            self.register_buffer(name, value)

    @abstractmethod
    def matrix(self, kind: torch.dtype) -> Tensor:
        """Ŵ (out, in) in this type, without directions beside it."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of the kept numbers."""

    def hold(self, b: Tensor | None, a: Tensor | None) -> None:
        """Put these directions in the place of those that stand beside the matrix; None for none."""
        self.b = None if b is None else b.to(self.device)
        self.a = None if a is None else a.to(self.device)

    def dense(self, kind: torch.dtype) -> Tensor:
        """Ŵ + b a, (out, in), in this type."""
        matrix = self.matrix(kind)
        return matrix if self.b is None or self.a is None else matrix.addmm_(self.b.to(kind), self.a.to(kind))

    def forward(self, x: Tensor) -> Tensor:
        """x Ŵᵀ + c: (T, in) -> (T, out)."""
        kind = computed_in(x)
        y = functional.linear(x.to(kind), self.dense(kind)).to(x.dtype)
        return y if self.bias is None else y.add_(self.bias)

    def back(self, d_y: Tensor) -> Tensor:
        """d_y Ŵ: (T, out) -> (T, in)."""
        kind = computed_in(d_y)
        return (d_y.to(kind) @ self.dense(kind)).to(d_y.dtype)


def computed_in(x: Tensor) -> torch.dtype:
    """The type of a product with these rows."""
    return torch.bfloat16 if x.device.type == "cuda" else x.dtype


class BnbInt8(Quantised):
    """Every output channel's weights as multiples of its largest over 127."""

    numbers: Tensor  # (out, in) int8
    scales: Tensor  # (out,) float32, the largest |weight|

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(bias)
        numbers, scales, _ = library().int8_vectorwise_quant(weight.half())  # the type that the kernel takes
        self.register_buffer("numbers", numbers)
        self.register_buffer("scales", scales)

    @property
    def device(self) -> torch.device:
        """The device of the kept numbers."""
        return self.numbers.device

    def matrix(self, kind: torch.dtype) -> Tensor:
        """Ŵ (out, in)."""
        found: Tensor = library().int8_vectorwise_dequant(self.numbers, self.scales)
        return found.to(kind)


class BnbNf4(Quantised):
    """Blocks of 64 weights, row after row, each weight as the nearest of sixteen levels times the block's largest."""

    numbers: Tensor  # (out in / 2, 1) uint8, two weights a byte
    scales: Tensor  # (blocks,) float32, the largest |weight|

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(bias)
        numbers, state = library().quantize_4bit(weight, blocksize=BLOCK, quant_type="nf4")
        self.register_buffer("numbers", numbers)
        self.register_buffer("scales", state.absmax)
        self.shape = weight.shape

    @property
    def device(self) -> torch.device:
        """The device of the kept numbers."""
        return self.numbers.device

    def matrix(self, kind: torch.dtype) -> Tensor:
        """Ŵ (out, in)."""
        known = library().QuantState(self.scales, self.shape, None, BLOCK, "nf4", kind)
        found: Tensor = library().dequantize_4bit(self.numbers, known)
        return found


BNB: Mapping[BasePrecision, Callable[[Tensor, Tensor | None], Quantised]] = {"bnb-int8": BnbInt8, "bnb-nf4": BnbNf4}


@torch.no_grad()
def quantise(model: PreTrainedModel, precision: BasePrecision) -> int:
    """Keep the frozen linear layers of a model on the CPU in few bits, all but its head. Returns how many there are.

    A layer keeps an empty weight in the place of its own, for code that asks for its type.
    """
    layers = frozen_linears(model)
    for layer in layers:
        weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight  # (out, in)
        layer.quantised = BNB[precision](weight.detach().contiguous(), layer.bias)
        layer.weight = nn.Parameter(weight.new_empty(0), requires_grad=False)
        compute_by(layer, layer.quantised)
    return len(layers)


def quantised_of(layer: nn.Module) -> Quantised | None:
    """The map that a layer computes by, where it was quantised."""
    found = getattr(layer, "quantised", None)
    return found if isinstance(found, Quantised) else None
