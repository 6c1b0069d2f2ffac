"""The losses, as pure functions of tensors.

Shapes: B rows, T tokens, N response tokens of the batch, V vocabulary. Log-probabilities are natural, so losses are in
nats.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

LOGITS_AT_ONCE = 1 << 25  # 128 MiB in float32


def target_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """log p of each target token, in float32 at least: logits (N, V), targets (N,) int64 -> (N,)."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return -functional.cross_entropy(wide, targets, reduction="none")


def target_log_probs_of(head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, vocabulary: int) -> Tensor:
    """log p of each target token from the last hidden states: hidden (N, D), targets (N,) -> (N,).

    The logits are N x V, the largest tensor of a training step by far. 8 pairs of 512 tokens of GPT-2 have 1.6 GB of
    them, four times over with softmax and gradients. Above `LOGITS_AT_ONCE` they are made in chunks of rows, and made
    again for the gradient instead of kept (Chen et al. 2016).
    """
    rows = max(1, LOGITS_AT_ONCE // vocabulary)
    if len(targets) <= rows:
        return target_log_probs(head(hidden), targets)

    def chunk(hidden: Tensor, targets: Tensor) -> Tensor:
        return target_log_probs(head(hidden), targets)

    parts = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    return torch.cat([checkpoint(chunk, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])


def response_nll(log_probs: Tensor, response_mask: Tensor) -> Tensor:
    """Mean negative log-likelihood over the response tokens of a batch, in nats per token.

    `log_probs` (B, T) holds log p of each token given those before it, `response_mask` (B, T) says which count. A batch
    without response tokens has loss 0.
    """
    mask = response_mask.to(log_probs.dtype)
    return -(log_probs * mask).sum() / mask.sum().clamp(min=1.0)


def sequence_log_probs(log_probs: Tensor, response_mask: Tensor) -> Tensor:
    """log p(response | prompt) of each row: (B, T), (B, T) -> (B,)."""
    return (log_probs * response_mask.to(log_probs.dtype)).sum(dim=-1)
