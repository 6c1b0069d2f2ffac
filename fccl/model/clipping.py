"""Clipping of gradients example by example (Abadi et al. 2016), for any engine.

Shapes: E examples, P numbers in the gradient of one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from fccl.model.language_model import EachLoss, LanguageModel
from fccl.model.rows import Responses


def clipped(gradients: Tensor, clip: float) -> Tensor:
    """Σ_i g_i min(1, clip / ‖g_i‖) in float64: (E, P) -> (P,).

    A gradient that is not finite counts as zero, so that no example moves the sum by more than `clip`.

    >>> clipped(torch.tensor([[3.0, 4.0], [0.0, 0.5], [0.0, 0.0]]), 1.0)
    tensor([0.6000, 1.3000], dtype=torch.float64)
    """
    norms = torch.linalg.vector_norm(gradients, dim=1, dtype=torch.float64)  # (E,)
    finite = norms.isfinite()
    if not bool(finite.all()):
        gradients = gradients.masked_fill(~finite.unsqueeze(1), 0)
        norms = norms.masked_fill(~finite, 0)
    shares = clip / norms.clamp(min=clip)  # (E,)
    return torch.mv(gradients.double().T, shares)


def clipped_one_by_one(
    model: LanguageModel, examples: Sequence[Responses], losses: EachLoss, clip: float, factors: Collection[str] | None
) -> Mapping[str, Tensor]:
    """`LanguageModel.clipped_sum` by a gradient for each example, for an engine that has only those of batches."""
    total: dict[str, Tensor] = {}
    for place, example in enumerate(examples):
        gradient = model.loss_and_gradient([example], partial(_one_loss, losses, place), factors).gradient
        flat = torch.cat([part.reshape(-1) for part in gradient.values()])  # (P,)
        parts = split_like(gradient, clipped(flat.unsqueeze(0), clip))
        total = {name: total[name].add_(part) for name, part in parts.items()} if total else parts
    return total


def _one_loss(losses: EachLoss, place: int, log_probs: Tensor) -> Tensor:
    return losses(log_probs, [place]).sum()


def split_like(tensors: Mapping[str, Tensor], vector: Tensor) -> dict[str, Tensor]:
    """A vector (P,) in pieces of these tensors' shapes, in their order."""
    pieces = vector.split([tensor.numel() for tensor in tensors.values()])  # type: ignore[no-untyped-call]
    return {name: piece.view(tensor.shape) for (name, tensor), piece in zip(tensors.items(), pieces, strict=True)}
