"""The losses, as pure functions of tensors.

Shapes: B rows, T tokens, N response tokens of the batch, V vocabulary. Log-probabilities are natural, so losses are in nats.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def target_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """log p of each target token: logits (N, V), targets (N,) int64 -> (N,)."""
    return -functional.cross_entropy(logits.float(), targets, reduction="none")


def response_nll(log_probs: Tensor, response_mask: Tensor) -> Tensor:
    """Mean negative log-likelihood over the response tokens of a batch, in nats per token.

    `log_probs` (B, T) holds log p of each token given those before it, `response_mask` (B, T) says which count. A batch without
    response tokens has loss 0.
    """
    mask = response_mask.to(log_probs.dtype)
    return -(log_probs * mask).sum() / mask.sum().clamp(min=1.0)


def sequence_log_probs(log_probs: Tensor, response_mask: Tensor) -> Tensor:
    """log p(response | prompt) of each row: (B, T), (B, T) -> (B,)."""
    return (log_probs * response_mask.to(log_probs.dtype)).sum(dim=-1)


def dpo_losses(chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7), one loss a pair, in nats.

    -log sigmoid(beta · ((log π(chosen) - log π_ref(chosen)) - (log π(rejected) - log π_ref(rejected)))); all arguments and the
    result are (B,) sums over response tokens. log 2 where policy and reference agree.
    """
    margins = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -functional.logsigmoid(beta * margins)
