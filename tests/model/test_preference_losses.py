"""Preference losses: properties of each, and each against the pinned TRL's own trainers."""

import math
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.model.preference_losses import PREFERENCE_LOSSES, Pairs, losses_of
from fccl.specs import REFERENCE_FREE, PreferenceLoss, PreferenceSpec
from tests.examples import few

KINDS = sorted(PREFERENCE_LOSSES)
RELATIVE = [kind for kind in KINDS if kind not in REFERENCE_FREE]
log_probs = st.tuples(*[st.floats(-60, -0.5)] * 2)
betas = st.floats(0.01, 2.0)


def pairs_of(policy, reference, lengths=(3, 5)):
    return Pairs(
        torch.tensor([policy], dtype=torch.float64),
        None if reference is None else torch.tensor([reference], dtype=torch.float64),
        torch.tensor([lengths]),
    )


def loss(kind, policy, reference, lengths=(3, 5), **spec):
    return float(losses_of(pairs_of(policy, reference, lengths), PreferenceSpec(loss=kind, **spec)))


def test_every_name_has_a_formula():
    assert set(PREFERENCE_LOSSES) == set(get_args(PreferenceLoss))


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_needs_its_reference_exactly_where_its_specification_says_so(kind):
    spec = PreferenceSpec(loss=kind)
    pairs = pairs_of((-4.0, -6.0), None)
    if spec.takes_reference:
        with pytest.raises(ValueError, match="reference"):
            losses_of(pairs, spec)
    else:
        assert torch.isfinite(losses_of(pairs, spec)).all()


def slope_of_the_margin(kind, reference, beta):
    """How a loss changes when the policy leaves the reference towards the chosen response."""
    start = torch.tensor([reference], dtype=torch.float64, requires_grad=True)
    pairs = Pairs(start, start.detach(), torch.tensor([[3, 5]]))
    (slopes,) = torch.autograd.grad(losses_of(pairs, PreferenceSpec(loss=kind, beta=beta)).sum(), start)
    return float(slopes[0, 0] - slopes[0, 1])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "discopop"])
@given(reference=log_probs, beta=betas)
@settings(max_examples=few(60), deadline=None)
def test_the_first_step_from_the_reference_widens_the_margin(kind, reference, beta):
    assert -1e9 < slope_of_the_margin(kind, reference, beta) < 0


@given(reference=log_probs, beta=betas)
@settings(max_examples=few(60), deadline=None)
def test_discopop_narrows_it_at_first(reference, beta):
    """Its known dip: between its two parts the loss rises with the margin, by 5 (1 - log 2) - 3/4 in units of β."""
    assert slope_of_the_margin("discopop", reference, beta) == pytest.approx(2 * beta * (5 - 5 * math.log(2) - 0.75))


@pytest.mark.parametrize("kind", RELATIVE)
@given(policy=log_probs, moved=st.tuples(*[st.floats(-20, 20)] * 2))
@settings(max_examples=few(40), deadline=None)
def test_only_the_gain_over_the_reference_counts(kind, policy, moved):
    shifted = tuple(value + step for value, step in zip(policy, moved, strict=True))
    assert loss(kind, shifted, policy) == pytest.approx(loss(kind, moved, (0.0, 0.0)), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", ["sigmoid_norm", "ipo", "simpo", "orpo"])
def test_a_loss_per_token_does_not_see_how_long_a_response_is(kind):
    short = loss(kind, (-6.0, -10.0), (-9.0, -5.0), (3, 5))
    assert loss(kind, (-12.0, -10.0), (-18.0, -5.0), (6, 5)) == pytest.approx(short)


@given(policy=log_probs, reference=log_probs, beta=betas)
@settings(max_examples=few(100), deadline=None)
def test_sigmoid_is_dpos_formula(policy, reference, beta):
    margin = beta * ((policy[0] - reference[0]) - (policy[1] - reference[1]))
    expected = math.log1p(math.exp(-margin)) if margin > -30 else -margin
    assert loss("sigmoid", policy, reference, beta=beta) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(policy=log_probs, reference=log_probs, flipped=st.floats(0.01, 0.4))
@settings(max_examples=few(60), deadline=None)
def test_robust_is_without_bias_where_that_share_of_labels_is_flipped(policy, reference, flipped):
    """E over the flips of the robust loss is DPO's loss with the right labels (Chowdhury et al. 2024, Lemma 3.1)."""
    as_is = loss("robust", policy, reference, label_smoothing=flipped)
    swapped = loss("robust", policy[::-1], reference[::-1], label_smoothing=flipped)
    mean = (1 - flipped) * as_is + flipped * swapped
    assert mean == pytest.approx(loss("sigmoid", policy, reference), rel=1e-6, abs=1e-9)


def test_exo_needs_smooth_labels():
    with pytest.raises(ValueError, match="LABEL_SMOOTHING above 0"):
        PreferenceSpec(loss="exo_pair", label_smoothing=0.0)


def test_a_certain_response_has_finite_odds():
    assert math.isfinite(loss("orpo", (0.0, -3.0), None))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(REFERENCE_FREE))
def test_losses_without_a_reference_are_trls(kind):
    """Of TRL's experimental trainers, on pairs one by one: their likelihood is a mean over a batch's tokens."""
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    spec = PreferenceSpec(loss=kind, beta=0.3, simpo_gamma=0.4)
    settings = {"beta": spec.beta, "simpo_gamma": 0.4, "loss_type": "simpo" if kind == "simpo" else "sigmoid"}
    trainer = SimpleNamespace(**settings, alpha=0.0, label_smoothing=0.0, accelerator=SimpleNamespace(device="cpu"))
    for policy, lengths in [((-4.0, -9.0), (3, 5)), ((-12.0, -2.0), (7, 2)), ((-0.4, -30.0), (4, 40))]:
        chosen, rejected = (torch.tensor([value]) for value in policy)
        means = chosen / lengths[0], rejected / lengths[1]
        likelihood = -float(means[0])
        if kind == "orpo":
            expected = likelihood - float(ORPOTrainer.odds_ratio_loss(trainer, *means)[0])
        else:
            sums = means if kind == "simpo" else (chosen, rejected)
            expected = float(CPOTrainer.cpo_loss(trainer, *sums)[0]) + (likelihood if kind == "cpo" else 0.0)
        found = loss(kind, policy, None, lengths, beta=0.3, simpo_gamma=0.4)
        assert found == pytest.approx(expected, rel=1e-5)
