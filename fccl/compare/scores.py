"""A model on the test split of one phase, example by example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch

from fccl.adapter import Adapter
from fccl.data.examples import PreferencePair, SftExample, read_examples
from fccl.encoding import encode_pairs, encode_sft
from fccl.evaluation.bootstrap import Floats
from fccl.evaluation.preference import choices
from fccl.losses import dpo_losses
from fccl.model import LanguageModel
from fccl.paths import DataPaths
from fccl.scoring import PairScores, score_pairs, score_sft
from fccl.specs import Phase


@dataclass(frozen=True, eq=False)
class TestScores:
    """Of each test example, all (n,). The held-out loss is sum(losses) / sum(units); preference accuracy is sum(right) / sum(decided)."""

    __test__ = False  # not a test, whatever its name says to pytest
    losses: Floats  # SFT: nats of the response; VA: DPO loss of the pair
    units: Floats  # SFT: response tokens; VA: 1
    right: Floats  # VA: 1 where the chosen response is the likelier one; SFT: (0,)
    decided: Floats  # VA: 1 where it is no tie; SFT: (0,)

    @property
    def loss(self) -> float:
        return float(self.losses.sum() / self.units.sum())

    @classmethod
    def mean(cls, many: Sequence[Self]) -> Self:
        """Of several models: the mean of every example's figures."""
        return cls(*(np.mean([getattr(each, field.name) for each in many], axis=0) for field in fields(cls)))


@dataclass(frozen=True, eq=False)
class TestSplit:
    """The test examples of a prepared folder, and how they are scored."""

    __test__ = False
    data: DataPaths
    phase: Phase
    beta: float
    batch_size: int

    def score(self, model: LanguageModel, adapter: Adapter, reference: Adapter) -> TestScores:
        """Leaves `adapter` loaded. `reference` counts in VA alone. Raises `AdapterError` when a score is not finite."""
        if self.phase == "sft":
            return self._responses(model, adapter)
        before, now = self._pairs(model, reference), self._pairs(model, adapter)
        logs = [torch.from_numpy(part) for part in (now.chosen, now.rejected, before.chosen, before.rejected)]
        losses = dpo_losses(logs[0], logs[1], logs[2], logs[3], self.beta).numpy()
        made = choices(now.margins)
        return TestScores(losses, np.ones(len(losses)), np.nan_to_num(made), 1.0 - np.isnan(made))

    def _responses(self, model: LanguageModel, adapter: Adapter) -> TestScores:
        rows = encode_sft(model.tokenizer, read_examples(self.data.held_out("test", "sft"), SftExample), model.spec.max_length)
        model.load(adapter)
        scores = score_sft(model, rows, self.batch_size)
        return TestScores(scores.nll, scores.tokens.astype(np.float64), np.zeros(0), np.zeros(0))

    def _pairs(self, model: LanguageModel, adapter: Adapter) -> PairScores:
        pairs = encode_pairs(model.tokenizer, read_examples(self.data.held_out("test", "va"), PreferencePair), model.spec.max_length)
        model.load(adapter)
        return score_pairs(model, pairs, self.batch_size)
