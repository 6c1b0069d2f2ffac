import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fccl.evaluation import bootstrap
from fccl.evaluation.bootstrap import Bootstrap

BOOT = Bootstrap(samples=400, seed=5)
columns = st.lists(st.tuples(st.floats(-40, 40), st.integers(1, 30)), min_size=1, max_size=30)


@given(columns)
@settings(deadline=None)
def test_value_is_the_ratio_of_sums_and_the_interval_lies_within_the_data(rows):
    over, under = np.array(rows).T
    found = BOOT.ratio(over, under)
    assert found.value == pytest.approx(over.sum() / under.sum())
    assert found.n == len(rows)
    assert found.low <= found.high
    assert (over / under).min() - 1e-9 <= found.low
    assert found.high <= (over / under).max() + 1e-9


@given(columns, st.floats(-5, 5), st.floats(0.1, 10))
@settings(deadline=None)
def test_moving_and_scaling_the_data_moves_and_scales_the_interval(rows, shift, scale):
    values = np.array(rows)[:, 0]
    before, after = BOOT.mean(values), BOOT.mean(values * scale + shift)
    for name in ("value", "low", "high"):
        assert getattr(after, name) == pytest.approx(getattr(before, name) * scale + shift, abs=1e-8)


@given(columns)
@settings(deadline=None)
def test_perplexity_is_exp_of_the_nll_per_token(rows):
    nll, tokens = np.array(rows).T
    log, perplexity = BOOT.ratio(nll, tokens), BOOT.perplexity(nll, tokens)
    assert (perplexity.value, perplexity.low, perplexity.high) == pytest.approx(
        (math.exp(log.value), math.exp(log.low), math.exp(log.high))
    )


@given(st.floats(-100, 100), st.integers(1, 40))
def test_equal_values_have_an_interval_without_width(value, count):
    found = BOOT.mean([value] * count)
    assert (found.low, found.high) == (pytest.approx(value), pytest.approx(value))


def test_one_example_is_its_own_interval():
    found = BOOT.ratio([6.0], [3])
    assert (found.value, found.low, found.high, found.n) == (2.0, 2.0, 2.0, 1)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another(monkeypatch):
    values = np.random.default_rng(0).normal(size=50)
    assert BOOT.mean(values) == BOOT.mean(values)
    assert BOOT.mean(values) != Bootstrap(samples=400, seed=6).mean(values)


def test_blocks_of_resamples_join(monkeypatch):
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", 70)  # three resamples of twenty at once, four hundred in all
    sums = BOOT.sums(np.ones((20, 2)))
    assert sums.shape == (400, 2)
    assert (sums == 20).all()


def test_counts_are_of_the_rows_that_are_summed(monkeypatch):
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", 70)
    columns = np.random.default_rng(0).normal(size=(20, 2))
    counts = BOOT.counts(20)
    assert (counts.sum(axis=1) == 20).all()
    assert np.allclose(counts @ columns, BOOT.sums(columns), rtol=0, atol=1e-9)


def test_mean_agrees_with_scipy():
    values = np.random.default_rng(1).exponential(size=80)
    ours = Bootstrap(samples=20_000, seed=0).mean(values)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=0.01), pytest.approx(theirs.high, abs=0.01))


def test_ratio_agrees_with_scipy():
    draw = np.random.default_rng(3)
    tokens = draw.integers(1, 40, size=60).astype(float)
    nll = tokens * draw.gamma(2, size=60)

    def ratio(over, under, axis):
        return over.sum(axis) / under.sum(axis)

    ours = Bootstrap(samples=20_000, seed=0).ratio(nll, tokens)
    theirs = stats.bootstrap(
        (nll, tokens), ratio, paired=True, n_resamples=20_000, method="percentile", rng=np.random.default_rng(4)
    ).confidence_interval
    assert (ours.low, ours.high) == (pytest.approx(theirs.low, abs=0.02), pytest.approx(theirs.high, abs=0.02))


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    draw = np.random.default_rng(6)
    hits = [
        found.low <= 1.0 <= found.high
        for found in (Bootstrap(300, trial).mean(draw.exponential(size=100)) for trial in range(400))
    ]
    assert 0.90 <= np.mean(hits) <= 0.98


@pytest.mark.parametrize(
    ("over", "under"), [([], []), ([1.0, 2.0], [1.0]), ([1.0], [0.0]), ([math.nan], [1.0]), ([[1.0]], [[1.0]])]
)
def test_what_has_no_ratio_is_refused(over, under):
    with pytest.raises(ValueError, match=r"interval needs|positive|numerators"):
        BOOT.ratio(over, under)


def test_a_perplexity_beyond_all_floats_is_still_a_number():
    assert math.isfinite(BOOT.perplexity([1e6], [1]).value)
