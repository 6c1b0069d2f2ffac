"""A frozen linear map, y = x W + c and d_x = d_y Wᵀ, at one of three precisions (`BASE_PRECISION`).

Whatever the precision, activations and gradients come in and go out as they are. `Plain` is the map itself. `Bfloat16`
rounds W and what it meets to 8 bits of mantissa. `Int8` rounds both to whole numbers from -127 to 127, with a scale for
each channel of W and each row of x. `docs/training.md` says what each costs.

Shapes: T tokens, W (in, out), c (out,).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fccl.specs import BasePrecision

_LEVELS = 127  # on both sides of zero
_ZERO = 128  # that stands for 0 among the kernel's unsigned numbers
_SMALLEST = 1e-30  # the scale of a row or channel of zeros


class FrozenWeight(Protocol):
    """One linear map of the base model, in both directions."""

    def __call__(self, x: Tensor) -> Tensor:
        """x W + c: (T, in) -> (T, out), a tensor that nobody else holds."""
        ...

    def back(self, d_y: Tensor) -> Tensor:
        """d_y Wᵀ: (T, out) -> (T, in), a tensor that nobody else holds."""
        ...


@dataclass(frozen=True, eq=False)
class Plain:
    """The products as torch computes them in W's own type."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x W + c."""
        return torch.addmm(self.bias, x, self.weight)

    def back(self, d_y: Tensor) -> Tensor:
        """d_y Wᵀ."""
        return d_y @ self.weight.T


@dataclass(frozen=True, eq=False)
class Bfloat16:
    """W in bfloat16: products of rounded factors, summed in float32 by the kernel and rounded once. c is not rounded
    further."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x W + c."""
        return (x.bfloat16() @ self.weight).to(x.dtype).add_(self.bias)

    def back(self, d_y: Tensor) -> Tensor:
        """d_y Wᵀ."""
        return (d_y.bfloat16() @ self.weight.T).to(d_y.dtype)


@dataclass(frozen=True, eq=False)
class Packed8:
    """A matrix M (k, n) as int8 with one scale a column, in the layout of oneDNN's kernel: x (T, k) -> x M (T, n)."""

    numbers: Tensor  # in the kernel's own layout
    scales: Tensor  # (n,)
    zeros: Tensor  # (n,): no column has an offset

    @classmethod
    def of(cls, matrix: Tensor) -> Packed8:
        """Quantise every column of (k, n) by its largest entry."""
        columns = matrix.T.contiguous()  # (n, k)
        numbers, scales = rows_to_whole(columns)
        packed = torch.ops.onednn.qlinear_prepack(numbers.to(torch.int8), None)
        return cls(packed, scales.reshape(-1), torch.zeros(len(scales), dtype=torch.int64))

    def product(self, x: Tensor) -> Tensor:
        """x M, every row of x rounded to one digit: (T, k) -> (T, n)."""
        numbers, scales = rows_to_whole(x)  # (T, k), (T, 1)
        return self._unscaled(numbers.add_(_ZERO).to(torch.uint8)).mul_(scales)

    def fine_product(self, x: Tensor) -> Tensor:
        """x M, every row of x rounded to two digits, the second of which counts 1 / 254: (T, k) -> (T, n)."""
        scales = row_scales(x)  # (T, 1)
        scaled = torch.mul(x, scales.reciprocal())
        first = scaled.round()
        digits = torch.empty(2 * len(x), x.shape[1], dtype=torch.uint8)
        digits[len(x) :] = scaled.sub_(first).mul_(2 * _LEVELS).round_().add_(_ZERO)
        digits[: len(x)] = first.add_(_ZERO)
        both = self._unscaled(digits)  # (2 T, n)
        return both[: len(x)].add_(both[len(x) :], alpha=1 / (2 * _LEVELS)).mul_(scales)

    def _unscaled(self, numbers: Tensor) -> Tensor:
        """Whole numbers (T, k) times M: (T, n). Their scales are a row's, which the kernel does not know.

        They come with `_ZERO` added: instructions for int8 multiply unsigned by signed numbers, and without AMX the
        library has a reference loop for signed by signed, a thousand times slower. The sums are the same, exactly.
        """
        found: Tensor = torch.ops.onednn.qlinear_pointwise(
            *(numbers, 1.0, _ZERO, self.numbers, self.scales, self.zeros),
            *(None, 1.0, 0, torch.float32, "none", [], ""),  # no bias, no rounding of the result, no activation
        )
        return found


def row_scales(x: Tensor) -> Tensor:
    """The largest |entry| of every row over 127: (T, k) -> (T, 1)."""
    largest = torch.maximum(x.amax(1, keepdim=True), -x.amin(1, keepdim=True))  # faster than by |x| or aminmax
    return largest.div_(_LEVELS).clamp_(min=_SMALLEST)


def rows_to_whole(x: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest multiples of each row's scale: (T, k) -> whole numbers from -127 to 127 (T, k), scales (T, 1)."""
    scales = row_scales(x)
    return torch.mul(x, scales.reciprocal()).round_(), scales


@dataclass(eq=False)
class Int8:
    """W as int8 twice: by output channel for x W, by input channel for d_y Wᵀ. The float32 W is only referred to.

    x has two digits and d_y one: activations have outliers, which leave one digit too coarse for the others of a row.
    W is quantised at the first product, and again after somebody has written to it: it takes in frozen directions.
    """

    weight: Tensor
    bias: Tensor

    def __post_init__(self) -> None:
        # no fields: what the map is, and what hashes of it see, are W and c
        self._packed: tuple[Packed8, Packed8] | None = None
        self._version = -1  # of the W that was packed

    def __call__(self, x: Tensor) -> Tensor:
        """x W + c."""
        return self._both()[0].fine_product(x).add_(self.bias)

    def back(self, d_y: Tensor) -> Tensor:
        """d_y Wᵀ."""
        return self._both()[1].product(d_y)

    def _both(self) -> tuple[Packed8, Packed8]:
        """W and Wᵀ, of the W that is there now."""
        if self._packed is None or self._version != self.weight._version:
            self._packed, self._version = (Packed8.of(self.weight), Packed8.of(self.weight.T)), self.weight._version
        return self._packed


FROZEN: Mapping[BasePrecision, Callable[[Tensor, Tensor], FrozenWeight]] = {
    "fp32": Plain,
    "bf16": Bfloat16,
    "int8": Int8,
}
