"""FedIT: supervised instruction tuning on the responses."""

from __future__ import annotations

from collections.abc import Sequence

from fccl.model.encoding import Encoded, collate
from fccl.model.language_model import LanguageModel
from fccl.model.losses import response_nll
from fccl.training.loop import StepLoss


class SftObjective:
    """Mean negative log-likelihood per response token of a batch.

    The epoch's average weighs every response token alike.
    """

    def __init__(self, model: LanguageModel, rows: Sequence[Encoded]) -> None:
        self.model, self.rows = model, rows
        self.lengths: Sequence[int] = [len(row.ids) for row in rows]

    def loss(self, indices: Sequence[int]) -> StepLoss:
        batch = collate([self.rows[index] for index in indices], self.model.pad_id)
        log_probs, mask = self.model.response_log_probs(batch)
        loss = response_nll(log_probs, mask)
        count = int(mask.sum())
        return StepLoss(loss, total=loss.item() * count, count=count)
