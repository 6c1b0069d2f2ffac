"""Objectives by phase: values from made-up log-probabilities, no model."""

import math

import pytest
import torch
from torch.nn import functional

from fccl.model.encoding import Encoded
from fccl.model.objectives import OBJECTIVES, objective_for
from fccl.specs import PHASES, PreferenceSpec


def row(prompt, response):
    return Encoded(tuple(range(prompt + response)), prompt, truncated=False)


ROWS = [(row(3, 2),), (row(1, 5),), (row(2, 1),)]
PAIRS = [(row(3, 2), row(3, 4)), (row(1, 5), row(1, 1))]
REFERENCE = torch.tensor([[-3.0, -2.0], [-1.0, -4.0]])


def test_every_phase_has_an_objective():
    assert set(OBJECTIVES) == set(PHASES)


def test_sft_is_the_likelihood_of_a_response_token():
    objective = objective_for("sft", ROWS)
    log_probs = torch.tensor([[-2.0], [-0.5]])
    assert objective.count([0, 2]) == 3
    assert float(objective.total([0, 2], log_probs)) == 2.5


def test_va_is_dpo_against_the_references_rows_of_the_batch():
    objective = objective_for("va", PAIRS, REFERENCE, PreferenceSpec(beta=0.5))
    log_probs = torch.tensor([[-1.5, -3.0]])
    margin = (-1.5 - -1.0) - (-3.0 - -4.0)
    assert objective.count([1]) == 1
    expected = -functional.logsigmoid(torch.tensor(0.5 * margin))
    assert float(objective.total([1], log_probs)) == pytest.approx(float(expected))
    assert float(objective.total([0, 1], REFERENCE)) == pytest.approx(2 * math.log(2))


def test_a_preference_loss_without_its_reference_is_refused():
    with pytest.raises(ValueError, match="reference"):
        objective_for("va", PAIRS)


def test_another_preference_loss_sees_the_lengths_of_its_responses():
    """IPO a token (Azar et al. 2024): (g_c / |c| - g_r / |r| - 1 / 2 beta)²."""
    objective = objective_for("va", PAIRS, REFERENCE, PreferenceSpec(loss="ipo", beta=0.5))
    gains = REFERENCE + torch.tensor([[0.0, 0.0], [10.0, 3.0]])  # of responses of 5 tokens and of 1
    assert float(objective.total([0], gains[[0]])) == 1.0
    assert float(objective.total([1], gains[[1]])) == (10 / 5 - 3 / 1 - 1) ** 2


def test_a_loss_without_a_reference_takes_none():
    objective = objective_for("va", PAIRS, None, PreferenceSpec(loss="cpo"))
    assert math.isfinite(float(objective.total([0, 1], REFERENCE)))


def test_the_reference_takes_the_precision_that_is_asked_for():
    objective = objective_for("va", PAIRS, REFERENCE)
    assert objective.total([0, 1], REFERENCE.double()).dtype == torch.float64
