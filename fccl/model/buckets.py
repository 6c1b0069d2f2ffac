"""Packed batches of few sizes: padded so that a step that was recorded for one batch serves others.

A CUDA graph repeats what it has recorded, over the same buffers. A batch is therefore brought to the next size of a
short list. Padding is made of tokens that no client owns and nobody predicts. They are sequences of their own behind
the real ones, so no real token sees them. They have no part in a loss or a gradient.

Shapes: T tokens, N predicted tokens, B sequences of at most L, R responses, K clients of LoRA rank r.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from fccl.model.packing import Packed

LEAST = 64  # tokens of the smallest size
_SHARE = 4  # at most one part in four of a larger size is padding


@dataclass(frozen=True)
class Size:
    """The sizes that a batch is padded to: T, N, B, L and R."""

    tokens: int
    predicted: int
    prompts: int
    longest: int
    responses: int


Sizing = Callable[[Packed], Size]


def own_size(packed: Packed) -> Size:
    """No padding."""
    return Size(len(packed.ids), len(packed.rows), *packed.shape, packed.responses)


def bucket(count: int, least: int = LEAST) -> int:
    """The smallest size that holds `count`: `least` or more, and four sizes between a power of two and the next.

    >>> [bucket(count) for count in (1, 64, 65, 128, 129, 784)]
    [64, 64, 80, 128, 160, 896]
    """
    if count <= least:
        return least
    unit = max(1, (1 << (count - 1).bit_length()) // (2 * _SHARE))
    return -(-count // unit) * unit


@dataclass(frozen=True)
class Buckets:
    """The sizes for batches of at most `prompts` prompts, each with `responses` responses.

    A size has one response more than any batch, for the predictions that pad it, and rows for the sequences of padding.
    """

    prompts: int
    responses: int

    def __call__(self, packed: Packed) -> Size:
        tokens, longest = bucket(len(packed.ids)), bucket(packed.shape[1], LEAST // 2)
        padding = tokens if tokens == LEAST else tokens // _SHARE  # the most that a batch of this size can have
        return Size(
            tokens=tokens,
            predicted=bucket(len(packed.rows)),
            prompts=self.prompts + -(-padding // longest),
            longest=longest,
            responses=(self.prompts + 1) * self.responses,
        )


def padded(packed: Packed, size: Size) -> Packed:
    """The batch at a larger size. Raises `ValueError` when it is too large for it."""
    (batch, longest), tokens, predicted = packed.shape, len(packed.ids), len(packed.rows)
    more = size.tokens - tokens
    spare = size.predicted - predicted
    cells = (size.prompts - batch) * size.longest
    if min(more, spare, size.longest - longest, cells - more, size.responses - packed.responses) < 0:
        raise ValueError(f"a batch of {own_size(packed)} does not fit {size}")
    if spare and size.responses == packed.responses:
        raise ValueError(f"{size} has no response for {spare} predictions of padding")
    behind = torch.arange(more, device=packed.ids.device)
    return replace(
        packed,
        ids=_longer(packed.ids, size.tokens),
        positions=_longer(packed.positions, size.tokens),
        places=torch.cat([_moved(packed.places, longest, size.longest), batch * size.longest + behind]),
        starts=_starts(packed, size),
        rows=_longer(packed.rows, size.predicted),
        targets=_longer(packed.targets, size.predicted),
        owners=_longer(packed.owners, size.predicted, size.responses - 1),
        shape=(size.prompts, size.longest),
        responses=size.responses,
        mask=None if packed.mask is None else _mask(packed.mask, size),
        foreign=None if packed.foreign is None else functional.pad(packed.foreign, (0, 0, 0, more), value=True),
    )


def _longer(column: Tensor, length: int, value: int = 0) -> Tensor:
    return functional.pad(column, (0, length - len(column)), value=value)


def _moved(places: Tensor, before: int, now: int) -> Tensor:
    """Places among rows of `before` cells, as places among rows of `now`: (T,) -> (T,)."""
    return torch.div(places, before, rounding_mode="floor") * now + places % before


def _starts(packed: Packed, size: Size) -> Tensor:
    """Where each sequence begins, those of padding too, which are full but the last; empty ones end it: (B + 1,)."""
    tokens, batch = len(packed.ids), packed.shape[0]
    rest = tokens + size.longest * torch.arange(size.prompts - batch + 1, device=packed.starts.device)
    return torch.cat([packed.starts[:-1], rest.clamp(max=size.tokens).to(packed.starts.dtype)])


def _mask(mask: Tensor, size: Size) -> Tensor:
    """Causal in the sequences of padding: (B, 1, L, L) -> the same at a larger size."""
    (batch, _, longest, _), length = mask.shape, size.longest
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    larger = causal.repeat(size.prompts, 1, 1, 1)
    larger[:batch, :, :longest, :longest] = mask
    return larger
