import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fccl.aggregation.coordinates import Median, TrimmedMean
from fccl.aggregation.state import ServerState
from fccl.errors import FederationError
from tests.aggregation.adapters import adapter, matrices, parts, vector
from tests.examples import few


def result(rule, matrix):
    return vector(rule.aggregate(adapter(np.zeros(matrix.shape[1])), parts(matrix), ServerState()).adapter)


@given(matrices())
@settings(deadline=None)
def test_median_is_numpys(matrix):
    np.testing.assert_array_equal(
        result(Median(), matrix), np.median(matrix.astype(np.float64), axis=0).astype(np.float32)
    )


@given(matrices(st.integers(5, 9)), st.integers(0, 2))
@settings(deadline=None)
def test_trimmed_mean_is_scipys(matrix, trim):
    expected = stats.trim_mean(
        matrix.astype(np.float64), (trim + 0.5) / len(matrix), axis=0
    )  # cuts trim at each end, whatever the rounding
    np.testing.assert_allclose(result(TrimmedMean(max_bad_clients=trim), matrix), expected, rtol=1e-6, atol=1e-6)


def test_trimming_nobody_is_the_mean_and_trimming_all_but_the_middle_the_median():
    matrix = np.random.default_rng(0).normal(size=(7, 5))
    np.testing.assert_allclose(result(TrimmedMean(max_bad_clients=0), matrix), matrix.mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(result(TrimmedMean(max_bad_clients=3), matrix), result(Median(), matrix))


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(max_bad_clients=3)])
@given(
    honest=matrices(st.integers(4, 6), st.just(4)),
    seed=st.integers(0, 999),
    bad=st.integers(1, 3),
    size=st.sampled_from([1.0, 1e6, 3e38]),
)
@settings(max_examples=few(50), deadline=None)
def test_a_minority_cannot_leave_what_the_honest_say(rule, honest, seed, bad, size):
    draw = np.random.default_rng(seed)
    liars = np.float32(draw.choice([-1, 1], (bad, 4)) * size) * draw.uniform(0.5, 1, (bad, 4)).astype(np.float32)
    everyone = draw.permutation(np.concatenate([honest, liars]))
    if len(everyone) < 7 and isinstance(rule, TrimmedMean):
        rule = TrimmedMean(max_bad_clients=bad)
    found = result(rule, everyone)
    assert (found >= honest.min(axis=0)).all()
    assert (found <= honest.max(axis=0)).all()


def test_half_of_them_can():
    """The bound is sharp: with as many liars as honest clients the median is theirs to move."""
    assert result(Median(), np.array([[0.0] * 3] * 2 + [[1e6] * 3] * 2))[0] == 5e5


def test_trimming_everybody_is_an_error():
    with pytest.raises(
        FederationError,
        match="AGGREGATION=trimmed_mean with MAX_BAD_CLIENTS=2 needs at least 5 updates a round, and there are 4",
    ):
        result(TrimmedMean(max_bad_clients=2), np.ones((4, 3)))
