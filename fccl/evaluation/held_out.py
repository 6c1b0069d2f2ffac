"""The global adapter on the server's validation split, after every round."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

from fccl.adapter import Adapter
from fccl.data.examples import PreferencePair, SftExample
from fccl.encoding import Encoded, encode_pairs, encode_sft
from fccl.evaluation.preference import accuracy
from fccl.losses import dpo_losses
from fccl.model import LanguageModel
from fccl.records import HeldOut
from fccl.scoring import EncodedPair, PairScores, score_pairs, score_sft
from fccl.specs import Phase


class Validator:
    """Called with a round's phase, its new adapter and, in VA rounds, the reference adapter; returns the held-out figures.

    The encoded rows are kept, and so are the reference policy's log-probabilities, as long as the reference is the same.
    """

    def __init__(self, model: LanguageModel, sft: Sequence[SftExample], va: Sequence[PreferencePair], *, beta: float, batch_size: int) -> None:
        self.model, self.sft, self.va, self.beta, self.batch_size = model, sft, va, beta, batch_size
        self._reference: tuple[str, PairScores] | None = None

    def __call__(self, phase: Phase, adapter: Adapter, reference: Adapter | None) -> HeldOut:
        """Leaves `adapter` loaded. Raises `AdapterError`, and `ValueError` when a VA round comes without its reference."""
        return self._response_loss(adapter) if phase == "sft" else self._preference_loss(adapter, reference)

    @cached_property
    def _rows(self) -> list[Encoded]:
        return encode_sft(self.model.tokenizer, self.sft, self.model.spec.max_length)

    @cached_property
    def _pairs(self) -> list[EncodedPair]:
        return encode_pairs(self.model.tokenizer, self.va, self.model.spec.max_length)

    def _response_loss(self, adapter: Adapter) -> HeldOut:
        """Nats per response token."""
        self.model.load(adapter)
        scores = score_sft(self.model, self._rows, self.batch_size)
        return HeldOut(loss=float(scores.nll.sum() / scores.tokens.sum()), examples=len(self._rows))

    def _preference_loss(self, adapter: Adapter, reference: Adapter | None) -> HeldOut:
        """Mean DPO loss against the reference, and preference accuracy by sum of log-probabilities."""
        if reference is None:
            raise ValueError("a VA round is validated against its reference adapter")
        before = self._reference_scores(reference)
        self.model.load(adapter)
        now = score_pairs(self.model, self._pairs, self.batch_size)
        logs = [torch.from_numpy(part) for part in (now.chosen, now.rejected, before.chosen, before.rejected)]
        loss = dpo_losses(logs[0], logs[1], logs[2], logs[3], self.beta).mean()
        return HeldOut(loss=float(loss), preference_accuracy=accuracy(now.margins), examples=len(self._pairs))

    def _reference_scores(self, reference: Adapter) -> PairScores:
        if self._reference is None or self._reference[0] != reference.sha256:
            self.model.load(reference)
            self._reference = reference.sha256, score_pairs(self.model, self._pairs, self.batch_size)
        return self._reference[1]
