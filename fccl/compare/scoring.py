"""A model on the test split of one phase, example by example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self

import numpy as np
import torch

from fccl.adapters.adapter import Adapter
from fccl.compare.values import mean_loss
from fccl.data.examples import PreferencePair, SftExample, read_examples
from fccl.evaluation.bootstrap import Floats
from fccl.evaluation.preference import choices
from fccl.model.encoding import Encoded, encode_pairs, encode_sft
from fccl.model.language_model import LanguageModel
from fccl.model.preference_losses import Pairs, losses_of
from fccl.model.scoring import EncodedPair, PairScores, score_pairs, score_sft
from fccl.paths import DataPaths
from fccl.specs import Phase, PreferenceSpec


@dataclass(frozen=True, eq=False)
class TestScores:
    """Of each test example, all (n,).

    The test loss is sum(losses) / sum(units); preference accuracy is sum(right) / sum(decided).
    """

    __test__ = False  # not a test, whatever its name says to pytest
    losses: Floats  # SFT: nats of the response; VA: DPO loss of the pair
    units: Floats  # SFT: response tokens; VA: 1
    right: Floats  # VA: 1 where the chosen response is the likelier one; SFT: (0,)
    decided: Floats  # VA: 1 where it is no tie; SFT: (0,)

    @property
    def loss(self) -> float:
        return mean_loss(self.losses, self.units)

    @classmethod
    def mean(cls, many: Sequence[Self]) -> Self:
        """Of several models: the mean of every example's figures."""
        return cls(*(np.mean([getattr(each, field.name) for each in many], axis=0) for field in fields(cls)))


@dataclass(frozen=True, eq=False)
class TestSplit:
    """The test examples of a prepared folder under adapters of one model, in VA against `reference`.

    Read, encoded and scored under it once.
    """

    __test__ = False
    model: LanguageModel
    data: DataPaths
    phase: Phase
    preference: PreferenceSpec
    batch_size: int
    reference: Adapter

    def score(self, adapter: Adapter) -> TestScores:
        """Leaves `adapter` loaded. Raises `AdapterError` when a score is not finite."""
        if self.phase == "sft":
            self.model.load(adapter)
            scores = score_sft(self.model, self.rows, self.batch_size)
            return TestScores(scores.nll, scores.tokens.astype(np.float64), np.zeros(0), np.zeros(0))
        before, now = self.before, self._pairs_under(adapter)
        lengths = torch.tensor([[row.response_length for row in pair] for pair in self.pairs])
        losses = losses_of(Pairs(now.log_probs, before.log_probs, lengths), self.preference).numpy()
        made = choices(now.margins)
        return TestScores(losses, np.ones(len(losses)), np.nan_to_num(made), 1.0 - np.isnan(made))

    @cached_property
    def rows(self) -> list[Encoded]:
        """The instructions."""
        return encode_sft(
            self.model.tokenizer,
            read_examples(self.data.server_split("test", "sft"), SftExample),
            self.model.spec.max_length,
            self.model.spec.text,
        )

    @cached_property
    def pairs(self) -> list[EncodedPair]:
        """The preference pairs."""
        return encode_pairs(
            self.model.tokenizer,
            read_examples(self.data.server_split("test", "va"), PreferencePair),
            self.model.spec.max_length,
            self.model.spec.text,
        )

    @cached_property
    def before(self) -> PairScores:
        """log π_ref of all pairs. Leaves `reference` loaded."""
        return self._pairs_under(self.reference)

    def _pairs_under(self, adapter: Adapter) -> PairScores:
        self.model.load(adapter)
        return score_pairs(self.model, self.pairs, self.batch_size)
