"""torch's attention for packed sequences of any lengths, on a GPU in 16 bits: it reads the tokens where they are.

It is `torch.nn.attention.varlen`, where the installed torch has it. Elsewhere attention spreads the tokens to padded
rows. Shapes: T tokens in B sequences of at most L; H heads of C channels, D = H C.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from fccl.model.packing import Packed

HALVES = (torch.bfloat16, torch.float16)  # the types of torch's kernel for variable lengths
CAUSAL = (-1, 0)  # its window: everything before, nothing after
_MOST_CHANNELS = 256  # of a head in that kernel
_AMPERE = (8, 0)  # the first GPUs that it runs on


def has_variable_length(device: torch.device) -> bool:
    """Whether this device has torch's kernel for variable lengths."""
    if device.type != "cuda" or variable_length_kernel() is None:
        return False
    return torch.cuda.get_device_capability(device) >= _AMPERE


def takes_channels(channels: int) -> bool:
    """Whether the kernel takes heads of so many channels."""
    return channels % 8 == 0 and channels <= _MOST_CHANNELS


@cache
def variable_length_kernel() -> Callable[..., Any] | None:
    """`torch.nn.attention.varlen.varlen_attn`, where the installed torch has it with all that is asked of it here."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if {"scale", "window_size", "enable_gqa"} <= signature(varlen_attn).parameters.keys() else None


def attention_by_starts(
    qkv: Tensor, packed: Packed, heads: int, learn: bool
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """softmax(q kᵀ / √C) v in every sequence and head, in bfloat16: qkv (T, 3 D) -> (T, D), and its gradient.

    As `fccl.model.gpt2.attention`, for a batch without a mask.
    """
    kernel, longest, tokens = variable_length_kernel(), packed.shape[1], len(qkv)
    assert kernel is not None
    assert packed.mask is None
    halves = qkv.bfloat16().requires_grad_(learn)
    with torch.set_grad_enabled(learn):
        q, k, v = halves.view(tokens, 3, heads, -1).unbind(dim=1)  # each (T, H, C)
        starts = packed.starts
        out = kernel(
            *(q, k, v, starts, starts, longest, longest), scale=None, window_size=CAUSAL, enable_gqa=False
        ).reshape(tokens, -1)  # (T, D)

    def backward(d_out: Tensor) -> Tensor:
        (d_halves,) = torch.autograd.grad(out, halves, d_out.bfloat16())
        return d_halves.to(qkv.dtype)

    return out.detach().to(qkv.dtype), backward
