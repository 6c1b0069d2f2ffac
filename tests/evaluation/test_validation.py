import math

import pytest
import torch
from torch.nn import functional

from fccl.evaluation import validation
from fccl.evaluation.preference import accuracy
from fccl.evaluation.validation import Validator
from fccl.model import scoring
from fccl.model.encoding import encode_pairs, encode_sft
from fccl.model.scoring import score_pairs, score_sft
from fccl.specs import PreferenceSpec

BETA = 0.3
PREFERENCE = PreferenceSpec(beta=BETA)


@pytest.fixture
def validator(tiny_model, split):
    return Validator(tiny_model, split.sft, split.va, preference=PREFERENCE, batch_size=4)


def test_sft_rounds_have_nats_per_response_token(tiny_model, an_adapter, split, validator):
    found = validator("sft", an_adapter(1), None)
    tiny_model.load(an_adapter(1))
    scores = score_sft(tiny_model, encode_sft(tiny_model.tokenizer, split.sft, 128), 1)
    assert found.loss == pytest.approx(scores.nll.sum() / scores.tokens.sum(), rel=1e-6)
    assert (found.preference_accuracy, found.examples) == (None, 9)


def test_va_rounds_have_the_dpo_loss_against_the_reference(tiny_model, an_adapter, split, validator):
    found = validator("va", an_adapter(1), an_adapter(9))
    pairs = encode_pairs(tiny_model.tokenizer, split.va, 128)
    margins = []
    for seed in (1, 9):
        tiny_model.load(an_adapter(seed))
        margins.append(torch.tensor(score_pairs(tiny_model, pairs, 1).margins))
    assert found.loss == pytest.approx(float(-functional.logsigmoid(BETA * (margins[0] - margins[1])).mean()), rel=1e-5)
    assert found.preference_accuracy == accuracy(margins[0].numpy()) != accuracy(margins[1].numpy())
    assert found.examples == 8


def test_the_reference_against_itself_costs_log_two(an_adapter, validator):
    assert validator("va", an_adapter(2), an_adapter(2)).loss == pytest.approx(math.log(2), rel=1e-5)


def test_a_va_round_without_reference_is_refused(an_adapter, validator):
    with pytest.raises(ValueError, match="reference"):
        validator("va", an_adapter(1), None)


def test_what_stays_the_same_is_computed_once(an_adapter, validator, monkeypatch):
    calls = []

    def counting(model, pairs, batch_size):
        calls.append(len(pairs))
        return scoring.score_pairs(model, pairs, batch_size)

    def forbidden(*_):
        raise AssertionError("encoded twice")

    monkeypatch.setattr(validation, "score_pairs", counting)
    first = validator("va", an_adapter(1), an_adapter(2))
    assert len(calls) == 2
    monkeypatch.setattr(validation, "encode", forbidden)
    assert validator("va", an_adapter(1), an_adapter(2)) == first
    assert len(calls) == 3
    assert validator("va", an_adapter(1), an_adapter(3)) != first
    assert len(calls) == 5
