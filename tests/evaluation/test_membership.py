"""Attacks are measured as their papers say: an AUC's interval, recall at 1 % false alarms, exposure by rank."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from fccl.evaluation.membership import auc, chance, exposure, found_at, membership
from tests.examples import few

SCORES = st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=40)


@given(SCORES, SCORES)
@settings(max_examples=few(100), deadline=None)
def test_the_area_is_that_of_scikit_learn_ties_included(members, others):
    labels = [1] * len(members) + [0] * len(others)
    found = auc(np.array(members), np.array(others))
    assert found.value == pytest.approx(roc_auc_score(labels, members + others))
    assert 0 <= found.low <= found.value <= found.high <= 1


@given(SCORES, SCORES)
@settings(max_examples=few(100), deadline=None)
def test_the_share_found_is_the_best_of_the_curve_with_no_more_false_alarms(members, others):
    false, true, _ = roc_curve([1] * len(members) + [0] * len(others), members + others, drop_intermediate=False)
    allowed = 0.1
    assert found_at(np.array(members), np.array(others), allowed) == pytest.approx(max(true[false <= allowed + 1e-12]))


def test_the_interval_holds_the_true_area_of_two_normals_nineteen_times_in_twenty():
    draw, truth = np.random.default_rng(7), 0.5 * (1 + math.erf(1 / 2))  # P(x > y), x ~ N(1, 1), y ~ N(0, 1)
    held = 0
    for _ in range(400):
        found = auc(draw.normal(1, 1, 120), draw.normal(0, 1, 80))
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 400 <= 0.98


@pytest.mark.parametrize(("place", "bits"), [(0, math.log2(8)), (3, math.log2(8) - 2), (7, 0.0)])
def test_exposure_is_the_logarithm_of_how_far_up_a_canary_stands(place, bits):
    """Carlini et al. 2019: log2 |R| - log2 rank; 7 unused and the canary are 8."""
    unused = [7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]
    found = exposure([7.5 - place, 7.5 - place], unused, repeats=4)
    assert found.mean.value == pytest.approx(bits)
    assert (found.repeats, found.mean.n) == (4, 2)


def test_canaries_that_were_never_planted_have_the_exposure_of_chance():
    draw = np.random.default_rng(3)
    found = exposure(draw.normal(size=20_000), draw.normal(size=1000), repeats=1)
    assert found.chance == pytest.approx(sum(math.log2(1001 / rank) for rank in range(1, 1002)) / 1001)
    assert found.mean.value == pytest.approx(chance(1000), abs=0.05)


def test_scores_that_are_all_alike_tell_nobody_apart():
    found = membership([1.0] * 200, [1.0] * 200)
    assert (found.auc.value, found.found, found.members, found.others) == (0.5, 0.0, 200, 200)


def test_an_area_needs_two_scores_of_each_kind():
    with pytest.raises(ValueError, match="two scores"):
        membership([1.0], [0.0, 1.0])
