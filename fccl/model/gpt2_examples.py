"""LoRA gradients of single examples in the written-out GPT-2, all in one pass.

An example's tokens follow each other, and no token looks into another example. So activations and their gradients are
those of the batch. Only the products that end in a factor's gradient go example by example, over its own rows: as many
multiplications as one product over all rows. `docs/training.md` has the derivation.

Shapes: E examples of T tokens, N of them predicted; P numbers in all factors; rank r.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fccl.model.gpt2 import Block, Factors, Gpt2, Linear
from fccl.model.packing import Packed


@dataclass(frozen=True, eq=False)
class ExampleFactors(Factors):
    """LoRA of one module, whose gradients are each example's own: d_a (E, r, in), d_b (E, out, r).

    `rows` (E,) are the numbers of rows of each example, in the order in which they come.
    """

    rows: Sequence[int] = ()

    def add(self, x: Tensor, low: Tensor, d_y: Tensor, d_low: Tensor) -> None:
        """Add the gradients of each example: of x (T, in), low and d_low (T, r), d_y (T, out)."""
        parts = zip(*(of_all.split(self.rows) for of_all in (x, low, d_y, d_low)), self.d_a, self.d_b, strict=True)  # type: ignore[no-untyped-call]
        for x_of, low_of, d_y_of, d_low_of, d_a, d_b in parts:
            d_b.addmm_(d_y_of.T, low_of, alpha=self.scale)  # (out, r)
            d_a.addmm_(d_low_of.T, x_of)  # (r, in)


def by_example(model: Gpt2, gradients: Tensor, packed: Packed) -> Gpt2:
    """The same model for one batch. It adds the gradients of its factors to `gradients` (E, P) example by example, each
    at its place in the flat vector.
    """
    examples = len(gradients)
    tokens = packed.starts.diff().tolist()  # (E,)
    owners = packed.owners // (packed.responses // examples)  # (N,)
    predicted = torch.bincount(owners, minlength=examples).tolist()  # (E,)

    def linear(one: Linear, rows: Sequence[int]) -> Linear:
        return one if one.lora is None else replace(one, lora=_of_examples(one.lora, gradients, rows))

    def block(one: Block) -> Block:
        rows = predicted if one is model.blocks[-1] else tokens  # which are wanted above its attention
        proj, up, down = (linear(each, rows) for each in (one.proj, one.up, one.down))
        return replace(one, qkv=linear(one.qkv, tokens), proj=proj, up=up, down=down)

    return replace(model, blocks=[block(one) for one in model.blocks])


def _of_examples(lora: Factors, gradients: Tensor, rows: Sequence[int]) -> ExampleFactors:
    d_a, d_b = _at_place(lora.d_a, gradients), _at_place(lora.d_b, gradients)
    return ExampleFactors(lora.a, lora.b, d_a, d_b, lora.scale, rows)


def _at_place(part: Tensor, gradients: Tensor) -> Tensor:
    """Of (E, P) what `part` is of its vector (P,): (E, its shape)."""
    start = part.storage_offset()
    return gradients[:, start : start + part.numel()].view(len(gradients), *part.shape)
