import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.contribution.prior import FAR, prior_weights, shares, tilted
from fccl.testing.quadratic import task, update, updates


def weights(prior, task, given_updates):
    return prior_weights(prior, given_updates, shares(task, given_updates))


amounts = st.lists(st.floats(0.01, 1), min_size=1, max_size=8)


def test_by_samples_or_all_alike():
    given_updates = updates([(1.0, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 1.0)], [6, 3, 1])
    assert weights("samples", task(), given_updates) == pytest.approx((0.6, 0.3, 0.1))
    assert weights("uniform", task(), given_updates) == pytest.approx((1 / 3,) * 3)


@settings(deadline=None)
@given(st.lists(st.floats(1, FAR), min_size=1, max_size=9), st.lists(st.integers(1, 1000), min_size=9, max_size=9))
def test_nobody_within_the_limit_is_touched(norms, samples):
    given_updates = [update(index, (norm, 0.0, 0.0), samples[index]) for index, norm in enumerate(norms)]
    expected = np.array(samples[: len(norms)]) / sum(samples[: len(norms)])
    assert weights("samples", task(), given_updates) == pytest.approx(expected)


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=4), st.floats(1, 1e6))
def test_as_many_small_ones_make_no_large_one_far_out(small, size):
    """Honest clients of two, or half of any number, with few examples."""
    norms = [*small, *[size] * len(small)]
    given_updates = [update(index, (norm, 0.0, 0.0), 10) for index, norm in enumerate(norms)]
    assert weights("uniform", task(), given_updates) == pytest.approx((1 / len(norms),) * len(norms))


@settings(deadline=None)
@given(st.floats(2 * FAR, 1e30), st.integers(3, 8))
def test_one_that_is_far_out_moves_the_mean_as_one_of_the_median_s_length_would(size, clients):
    start = (0.5, -0.5, 0.25)
    honest = [(start[0] + 1.0, start[1], start[2])] * (clients - 1)
    prior = weights("uniform", task(start), updates([*honest, (start[0], start[1] + size, start[2])]))
    assert prior[-1] * size == pytest.approx(prior[0], rel=1e-3)
    assert math.fsum(prior) == pytest.approx(1)


def test_free_riders_who_did_not_move_do_not_make_the_others_far_out():
    start = (1.0, 2.0, 3.0)
    prior = weights("uniform", task(start), updates([start, start, start, (1.5, 2.0, 3.0), (1.0, 1.5, 3.0)]))
    assert prior == pytest.approx((0.2,) * 5)
    assert weights("uniform", task(start), updates([start, start])) == (0.5, 0.5)


@settings(deadline=None)
@given(amounts, st.data(), st.floats(0.01, 100))
def test_tilted_is_the_softmax_over_the_prior(prior, data, temperature):
    scores = data.draw(st.lists(st.floats(-20, 20), min_size=len(prior), max_size=len(prior)))
    expected = np.array(prior) * np.exp((np.array(scores) - max(scores)) / temperature)
    assert tilted(prior, scores, temperature) == pytest.approx(expected / expected.sum(), abs=1e-12)


@settings(deadline=None)
@given(amounts, st.floats(-1e6, 1e6))
def test_equal_scores_leave_the_prior(prior, score):
    assert tilted(prior, [score] * len(prior), 0.5) == pytest.approx(np.array(prior) / sum(prior))


def test_a_small_temperature_takes_the_best_and_nothing_overflows():
    assert tilted((0.9, 0.05, 0.05), (-1e300, 1.0, 0.999), 1e-9) == pytest.approx((0, 1, 0))
