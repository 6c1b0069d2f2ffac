import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.aggregation.norm_clipping import NormClipping
from fccl.aggregation.state import ServerState
from tests.aggregation.adapters import adapter, matrices, parts, vector, weights_for


def clipped(matrix, weights=None, before=None, **settings_):
    before = np.zeros(matrix.shape[1]) if before is None else before
    return NormClipping(**settings_).aggregate(adapter(before), parts(matrix, weights), ServerState())


@given(matrices(), st.integers(0, 99), st.sampled_from([0.0, 0.5, 20.0]))
@settings(deadline=None)
def test_is_the_mean_of_what_is_clipped(matrix, seed, bound):
    weights, before = weights_for(matrix, seed), np.random.default_rng(seed).integers(-2, 3, matrix.shape[1])
    deltas = matrix.astype(np.float64) - before
    norms = np.linalg.norm(deltas, axis=1)
    limit = bound or np.median(norms)
    kept = [delta if norm <= limit else delta * limit / norm for delta, norm in zip(deltas, norms, strict=True)]
    expected = before + np.average(kept, axis=0, weights=weights)
    np.testing.assert_allclose(
        vector(clipped(matrix, weights, before, clip_norm=bound).adapter), expected, rtol=1e-5, atol=1e-5
    )


@given(matrices(), st.floats(0.01, 10))
@settings(deadline=None)
def test_the_adapter_never_moves_farther_than_the_bound(matrix, bound):
    assert np.linalg.norm(vector(clipped(matrix, clip_norm=bound).adapter)) <= bound * (1 + 1e-6)


@given(matrices(st.integers(3, 5), st.just(4)), st.integers(0, 99), st.sampled_from([10.0, 1e6, 3e38]))
@settings(deadline=None)
def test_a_minority_cannot_move_it_farther_than_an_honest_client(honest, seed, size):
    liars = np.float32(size * np.random.default_rng(seed).choice([-1, 1], (2, 4)))
    found = vector(clipped(np.concatenate([honest, liars])).adapter)
    assert np.linalg.norm(found) <= np.linalg.norm(honest.astype(np.float64), axis=1).max() * (1 + 1e-6)


def test_says_how_much_is_left_of_each():
    result = clipped(np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 10]]))
    np.testing.assert_allclose(result.weights, [1 / 3, 1 / 3, 1 / 30])


def test_with_nothing_to_clip_it_is_fedavg():
    matrix = np.random.default_rng(0).normal(size=(4, 5))
    np.testing.assert_allclose(vector(clipped(matrix, clip_norm=100.0).adapter), matrix.mean(axis=0), atol=1e-6)
