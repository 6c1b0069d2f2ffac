"""FedVA: direct preference optimisation against the SFT global adapter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fccl.adapters.adapter import Adapter
from fccl.model.language_model import LanguageModel
from fccl.model.losses import dpo_losses
from fccl.model.scoring import EncodedPair, length_sorted_batches, pair_lengths, pair_log_probs
from fccl.training.loop import StepLoss


@torch.no_grad()
def reference_log_probs(
    model: LanguageModel, reference: Adapter, pairs: Sequence[EncodedPair], batch_size: int
) -> Tensor:
    """log π_ref of every pair under the reference adapter: (n, 2), on the model's device. Leaves `reference` loaded."""
    model.load(reference)
    result = torch.empty(len(pairs), 2, device=model.device)
    for indices in length_sorted_batches(pair_lengths(pairs), batch_size):
        result[indices] = pair_log_probs(model, [pairs[index] for index in indices])
    return result


class DpoObjective:
    """Mean DPO loss of a batch of pairs. `reference` is (n, 2): log π_ref of chosen and rejected."""

    def __init__(self, model: LanguageModel, pairs: Sequence[EncodedPair], reference: Tensor, beta: float) -> None:
        self.model, self.pairs, self.reference, self.beta = model, pairs, reference, beta
        self.lengths: Sequence[int] = pair_lengths(pairs)

    def loss(self, indices: Sequence[int]) -> StepLoss:
        policy = pair_log_probs(self.model, [self.pairs[index] for index in indices])
        reference = self.reference[list(indices)]
        loss = dpo_losses(policy[:, 0], policy[:, 1], reference[:, 0], reference[:, 1], self.beta).mean()
        return StepLoss(loss, total=loss.item() * len(indices), count=len(indices))
