"""Packed rows through a model of transformers: all tokens of a batch in one row, attention inside each sequence.

transformers lets an attention function be registered by name. Ours is put in for one forward pass and taken out again,
so generation keeps the library's own. Everything else in a layer works token by token and does not see the packing.

Shapes: T tokens of a batch in B sequences of at most L, N predicted tokens, D the width. Queries have H heads of C
channels, keys and values G of them: G divides H, and is less in grouped-query attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from fccl.model.encoding import Responses
from fccl.model.packing import Packed, pack
from fccl.model.variable_length import CAUSAL, HALVES, has_variable_length, takes_channels, variable_length_kernel

NAME = "fccl_packed"

# Models whose attention goes through transformers' interface, hands on what it does not know, and takes positions. A
# model with a bias by distance (ALiBi), attention sinks or soft caps has no place here: ours computes none of them.
_ARCHITECTURES = frozenset({"gpt2", "gpt_neox", "llama", "mistral", "opt", "phi", "qwen2", "qwen3"})


def can_pack(config: PreTrainedConfig, longest: int) -> bool:
    """Whether a model computes the same packed as padded, for sequences of at most `longest` tokens.

    It must be of a known architecture. A sliding window must be at least as long as any sequence: ours has none.
    """
    window = getattr(config, "sliding_window", None)
    return config.model_type in _ARCHITECTURES and (window is None or window >= longest)


def pack_for(examples: Sequence[Responses], device: torch.device, dtype: torch.dtype) -> Packed:
    """The batch on a device, in the form that attention over numbers of this type takes there.

    The kernel for variable lengths knows no mask, so with it the responses of a pair do not share their prompt.
    """
    if dtype in HALVES and has_variable_length(device):
        examples = [(response,) for responses in examples for response in responses]
    return pack(examples).to(device)


def last_hidden_state(body: PreTrainedModel, packed: Packed) -> Tensor:
    """The last hidden state of the tokens that predict, (N, D). `body` is the model below its output head."""
    ids, positions = packed.ids.unsqueeze(0), packed.positions.unsqueeze(0)  # (1, T)
    with _attending(body):
        found = body(input_ids=ids, position_ids=positions, use_cache=False, packed=packed).last_hidden_state
    return cast(Tensor, found.squeeze(0)[packed.rows])


@contextmanager
def _attending(body: PreTrainedModel) -> Iterator[None]:
    before = body.config._attn_implementation
    body.set_attn_implementation(NAME)
    try:
        yield
    finally:
        body.set_attn_implementation(before)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed: Packed,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """softmax(scaling q kᵀ) v in every sequence: query (1, H, T, C), key and value (1, G, T, C) -> (1, T, H, C).

    An attention function as transformers calls it. It has no weights to return.
    """
    q, k, v = (heads.squeeze(0).transpose(0, 1) for heads in (query, key, value))  # (T, H, C), (T, G, C)
    fits = v.dtype in HALVES and takes_channels(v.shape[-1])
    attend = _by_starts if packed.mask is None and fits and has_variable_length(v.device) else _by_rows
    return attend(q, k, v, packed, scaling).unsqueeze(0), None


AttentionInterface.register(NAME, attention)


def _by_rows(q: Tensor, k: Tensor, v: Tensor, packed: Packed, scaling: float | None) -> Tensor:
    """Spread to B padded rows for torch's fused kernel, and gathered again: (T, H, C)."""
    batch, longest = packed.shape
    groups = q.shape[1] // k.shape[1]

    def rows(x: Tensor) -> Tensor:  # (T, G, C) -> (B, G, L, C)
        return _spread(x, packed.places, batch * longest).view(batch, longest, *x.shape[1:]).transpose(1, 2)

    k, v = (rows(x).repeat_interleave(groups, dim=1) if groups > 1 else rows(x) for x in (k, v))  # (B, H, L, C)
    causal = packed.mask is None
    out = functional.scaled_dot_product_attention(rows(q), k, v, packed.mask, is_causal=causal, scale=scaling)
    return _gather(out.transpose(1, 2).reshape(batch * longest, *q.shape[1:]), packed.places)


class _Spread(torch.autograd.Function):
    """Rows put in their places among zeros. No place comes twice, which torch's own gradient would have to expect."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(places)
        return x.new_zeros(size, *x.shape[1:]).index_copy_(0, places, x)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, None, None]:
        (places,) = ctx.saved_tensors
        return _gather(d_y, places), None, None


class _Gather(torch.autograd.Function):
    """Rows taken from their places: what `_Spread` has put there, and each is the other's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.size = len(x)
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return _spread(d_y, places, ctx.size), None


def _spread(x: Tensor, places: Tensor, size: int) -> Tensor:
    """(T, …) -> (size, …)."""
    return _Spread.apply(x, places, size)  # type: ignore[no-any-return, no-untyped-call]


def _gather(x: Tensor, places: Tensor) -> Tensor:
    """(size, …) -> (T, …)."""
    return _Gather.apply(x, places)  # type: ignore[no-any-return, no-untyped-call]


def _by_starts(q: Tensor, k: Tensor, v: Tensor, packed: Packed, scaling: float | None) -> Tensor:
    """torch's kernel for variable lengths, which reads the packed tokens where they are: (T, H, C)."""
    kernel = variable_length_kernel()
    assert kernel is not None
    starts, longest = packed.starts, packed.shape[1]
    grouped = q.shape[1] != k.shape[1]
    found: Tensor = kernel(
        q, k, v, starts, starts, longest, longest, scale=scaling, window_size=CAUSAL, enable_gqa=grouped
    )
    return found
