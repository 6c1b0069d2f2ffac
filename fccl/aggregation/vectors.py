"""Adapters as vectors: the arithmetic that the rules share.

d is the number of an adapter's values, n that of the updates. Sums are in float64, in client order, and on one thread:
how a library splits a sum over threads would change its last bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor

from fccl.adapters.adapter import Adapter, Form
from fccl.aggregation.protocol import Parts
from fccl.errors import BadAggregate

BLOCK_BYTES = (
    128 * 2**20
)  # of values of all updates that are in memory at once; more updates make narrower blocks and more passes
TILE = 8192  # coordinates that are turned to float64 together


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread inside the block, or inside the function that this decorates."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def flat(adapter: Adapter) -> Tensor:
    """All values, tensor after tensor in the order of their names: (d,) float32, not to be written to."""
    return adapter.vector


def unflat(vector: Tensor, form: Form, rule: str) -> Adapter:
    """The adapter of this form with these values (d,), rounded to float32 once.

    Raises `BadAggregate` where float32 is too small for one.
    """
    rounded, tensors, start = vector.float(), {}, 0
    for name, shape in form.shapes.items():
        stop = start + prod(shape)
        tensors[name], start = rounded[start:stop].reshape(shape).clone(), stop
    return finite_adapter(tensors, rule)


def finite_adapter(tensors: Mapping[str, Tensor], rule: str) -> Adapter:
    """The adapter of these float32 tensors. Raises `BadAggregate` when some of them were too large for float32."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise BadAggregate(
                f"AGGREGATION={rule}: the aggregated {name} has values beyond float32",
                hint="a smaller SERVER_LR or CLIP_NORM, or a rule that leaves extreme updates out, such as median",
            )
    return Adapter(tensors)


def size(form: Form) -> int:
    """d, the number of values."""
    return sum(map(prod, form.shapes.values()))


def blocks(parts: Parts, form: Form) -> Iterator[tuple[slice, Tensor]]:
    """The updates as a matrix (n, d), a block of columns at a time: where it stands, and its values (n, width) in
    float32.

    At most `BLOCK_BYTES` and one adapter are in memory: the next block overwrites the last. Every block is one pass
    over the updates.
    """
    length = size(form)
    width = min(length, max(1, BLOCK_BYTES // (4 * len(parts))))
    buffer = torch.empty(len(parts), width)
    for start in range(0, length, width):
        block = buffer[:, : min(width, length - start)]
        for row, update in zip(block, parts.updates, strict=True):
            row.copy_(flat(update.load())[start : start + width])
        yield slice(start, start + block.shape[1]), block


def tiles(block: Tensor) -> Iterator[slice]:
    """Slices of a block's columns."""
    return (slice(start, min(start + TILE, block.shape[1])) for start in range(0, block.shape[1], TILE))


def mean_delta(before: Adapter, parts: Parts) -> Tensor:
    """sum_i w_i (u_i - before): (d,) float64. One pass; two vectors in memory."""
    origin = flat(before).double()
    total = torch.zeros_like(origin)
    for weight, adapter in parts.counted():
        total.add_(flat(adapter).double().sub_(origin), alpha=weight)
    return total


@one_thread()
def gram(before: Adapter, parts: Parts) -> Tensor:
    """⟨u_i - before, u_j - before⟩ for all i, j: (n, n) float64.

    The origin is `before`, which no client chose: around a mean that an extreme update has moved, the others'
    differences would drown in rounding. Raises `AdapterError` when an update does not fit `before`.
    """
    parts.require_form(before.form)
    origin = flat(before).double()
    total = torch.zeros(len(parts), len(parts), dtype=torch.float64)
    for where, block in blocks(parts, before.form):
        for tile in tiles(block):
            deltas = block[:, tile].double() - origin[where][tile]
            total.addmm_(deltas, deltas.T)
    return (total + total.T) / 2


@one_thread()
def delta_norms(before: Adapter, parts: Parts) -> list[float]:
    """‖u_i - before‖ of every update."""
    origin = flat(before).double()
    return [float(torch.linalg.vector_norm(flat(adapter).double().sub_(origin))) for _, adapter in parts]


def squared_distances(inner: Tensor) -> Tensor:
    """‖u_i - u_j‖² from the inner products: (n, n)."""
    norms = inner.diagonal()
    return (norms[:, None] + norms[None, :] - 2 * inner).clamp_(min=0).fill_diagonal_(0)
