import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fccl.contribution.noise import FEWEST_GROUPS, MOST_ERRORS, Estimated, kept, signal
from tests.examples import few

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=few(50), deadline=None)
@given(seeds, st.integers(FEWEST_GROUPS, 12), st.integers(1, 5))
def test_the_ratio_is_the_statistic_of_a_one_sample_t_test(seed, groups, clients):
    values = np.random.default_rng(seed).normal(size=(groups, clients))
    assert Estimated.of(values).ratio == pytest.approx(stats.ttest_1samp(values, 0.0).statistic)


@pytest.mark.parametrize("groups", range(1, FEWEST_GROUPS))
def test_few_groups_tell_nothing(groups):
    found = Estimated.of(np.random.default_rng(0).normal(3.0, 0.1, size=(groups, 4)))
    assert found.ratio.tolist() == [0.0] * 4
    assert found.signal(np.full(4, 0.25)) == 0.0


def test_a_mean_without_any_noise_is_beyond_every_doubt_and_none_is_none():
    found = Estimated.of(np.tile([2.0, -2.0, 0.0], (5, 1)))
    assert kept(found.ratio, 1.0, 3.0).tolist() == [0.0, 1.0, 1.0]
    assert found.signal(np.full(3, 1 / 3)) == pytest.approx(1.0, abs=1e-11)
    assert Estimated.of(np.zeros((5, 3))).signal(np.full(3, 1 / 3)) == 0.0


def test_the_noise_that_is_taken_off_is_what_noise_alone_has_on_average():
    """Without any signal mean² is error² times an F(1, k - 1) draw, whose expectation is (k - 1) / (k - 3); so over
    many clients the share before it is cut at 0 is 0.
    """
    draw, groups, clients = np.random.default_rng(3), 8, 200_000
    values = draw.normal(size=(groups, clients))
    found = Estimated.of(values)
    ratio = np.mean(found.mean**2 / found.error**2)
    assert ratio == pytest.approx((groups - 1) / (groups - 3), rel=0.02)
    assert found.signal(np.full(clients, 1 / clients)) <= 1.0


@pytest.mark.parametrize(("size", "low", "high"), [(0.0, 0.0, 0.15), (1.0, 0.8, 0.9), (30.0, 0.999, 1.0)])
def test_the_share_of_signal_grows_with_the_signal(size, low, high):
    draw = np.random.default_rng(11)
    shares = [
        Estimated.of(size * draw.normal(size=24) + draw.normal(size=(8, 24))).signal(np.full(24, 1 / 24))
        for _ in range(50)
    ]
    assert low <= np.mean(shares) <= high


@given(seeds, st.integers(FEWEST_GROUPS, 12), st.integers(1, 6))
def test_the_share_is_one_less_noise_over_spread(seed, groups, clients):
    draw = np.random.default_rng(seed)
    found = Estimated.of(draw.normal(size=(groups, clients)) + draw.normal(size=clients))
    weights = draw.dirichlet(np.ones(clients))
    noise, spread = weights @ found.error**2, weights @ found.mean**2
    expected = max(0.0, 1 - (groups - 1) / (groups - 3) * noise / spread)
    assert signal(found.in_noise(weights), weights, groups) == pytest.approx(expected, abs=1e-9)
    assert found.signal(weights) == pytest.approx(expected, abs=1e-9)


def test_without_any_noise_units_are_the_largest_that_there_are():
    found = Estimated.of(np.tile([2.0, -1.0, 0.0], (5, 1)))
    assert found.in_noise(np.full(3, 1 / 3)).tolist() == [MOST_ERRORS, -MOST_ERRORS / 2, 0.0]
    assert Estimated.of(np.zeros((5, 2))).in_noise(np.full(2, 0.5)).tolist() == [0.0, 0.0]
    assert signal(np.zeros(3), np.full(3, 1 / 3), 8) == 0.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9))
def test_what_is_kept_falls_from_all_to_nothing_and_never_rises(ratios):
    found = kept(np.array(sorted(ratios)), 1.0, 3.0)
    assert (np.diff(found) <= 0).all()
    assert found.min() >= 0
    assert found.max() <= 1
    assert kept(np.array([1.0, 2.0, 3.0]), 1.0, 3.0).tolist() == [1.0, 0.5, 0.0]
