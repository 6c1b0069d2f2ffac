"""Against scipy's minimiser, the optimality condition, and Weiszfeld's steps in the full space."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from fccl.aggregation.geometric_median import SMOOTHING, GeometricMedian
from fccl.aggregation.state import ServerState
from tests.aggregation.adapters import adapter, parts, vector
from tests.examples import few


def median(matrix, weights=None, before=None):
    before = np.zeros(matrix.shape[1]) if before is None else before
    return GeometricMedian().aggregate(adapter(before), parts(matrix, weights), ServerState())


def clouds(seed, clients, columns=4):
    return np.random.default_rng(seed).normal(size=(clients, columns)).astype(np.float32)


def cost(point, matrix, weights):
    return float(weights @ np.linalg.norm(matrix - point, axis=1))


@given(seed=st.integers(0, 9999), clients=st.integers(3, 9))
@settings(max_examples=few(40), deadline=None)
def test_no_point_is_better(seed, clients):
    matrix, weights = clouds(seed, clients), np.random.default_rng(seed).dirichlet(np.ones(clients))
    found = vector(median(matrix, weights).adapter)
    best = optimize.minimize(
        cost, found, (matrix.astype(np.float64), weights), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}
    ).fun
    assert cost(found, matrix, weights) <= best * (1 + 2e-4) + SMOOTHING * np.linalg.norm(matrix, axis=1).max()


@given(seed=st.integers(0, 9999), least=st.floats(1e-4, 0.06))
@settings(max_examples=few(40), deadline=None)
def test_where_the_median_nearly_meets_an_update_the_total_distance_is_within_two_ten_thousandths(seed, least):
    """The slowest case of Weiszfeld's steps: two updates of nearly half the weight each, one that tips the scales."""
    first = np.random.default_rng(seed).uniform(0.45, 0.5 - least / 4)
    matrix, weights = clouds(seed, 3), np.array([first, 1 - first - least, least])
    found = vector(median(matrix, weights).adapter)
    options = {"xatol": 1e-12, "fatol": 1e-14}
    best = min(
        optimize.minimize(cost, start, (matrix.astype(np.float64), weights), method="Nelder-Mead", options=options).fun
        for start in (found, *matrix.astype(np.float64))
    )
    assert cost(found, matrix, weights) <= best * (1 + 2e-4)


@given(seed=st.integers(0, 9999), bad=st.integers(0, 3), size=st.sampled_from([1.0, 3.0, 1000.0]))
@settings(max_examples=few(40), deadline=None)
def test_among_updates_like_those_of_clients_it_is_exact(seed, bad, size):
    """Eight updates of many numbers around a common direction, some of them turned round: the pulls cancel."""
    draw = np.random.default_rng(seed)
    matrix = draw.normal(size=300) + 0.7 * draw.normal(size=(8, 300))
    matrix[:bad] *= -size
    weights = draw.integers(50, 150, size=8) / 1.0
    shares = np.array(median(matrix.astype(np.float32), weights / weights.sum()).weights)
    point = shares @ matrix
    pulls = (matrix - point) / np.linalg.norm(matrix - point, axis=1, keepdims=True)
    assert np.linalg.norm(weights / weights.sum() @ pulls) < 1e-5


def test_the_pulls_of_all_updates_cancel():
    matrix, weights = clouds(1, 8), np.full(8, 1 / 8)
    found = vector(median(matrix).adapter)
    pulls = (matrix - found) / np.linalg.norm(matrix - found, axis=1, keepdims=True)
    np.testing.assert_allclose(weights @ pulls, 0, atol=1e-5)


def test_is_where_weiszfelds_steps_in_the_full_space_end():
    matrix, weights = clouds(2, 7).astype(np.float64), np.array([3, 1, 1, 2, 1, 1, 1]) / 10
    point = weights @ matrix
    for _ in range(3000):
        pull = weights / np.maximum(SMOOTHING, np.linalg.norm(matrix - point, axis=1))
        point = pull @ matrix / pull.sum()
    np.testing.assert_allclose(vector(median(matrix, weights).adapter), point, atol=1e-6)


def test_more_than_half_of_the_weight_in_one_place_decides():
    matrix = np.concatenate([np.full((1, 4), 2.0), clouds(3, 4)])
    found = median(matrix, [6, 1, 1, 1, 1])
    np.testing.assert_allclose(vector(found.adapter), 2.0, atol=1e-4)


@given(seed=st.integers(0, 9999), bad=st.integers(1, 3), size=st.sampled_from([1.0, 100.0, 1e6, 1e15, 3e37]))
@settings(max_examples=few(40), deadline=None)
def test_less_than_half_of_the_weight_is_bounded(seed, bad, size):
    """Around any point: ‖v‖ <= 2 (1 - s) / (1 - 2s) · max ‖u_i‖ of the honest, s the liars' weight (Lopuhaä & Rousseeuw
    1991).
    """
    honest = clouds(seed, 4)
    draw = np.random.default_rng(seed)
    liars = np.float32(size * draw.uniform(-1, 1, (1, 4))) * np.ones((bad, 1), np.float32)
    weights = np.concatenate([draw.uniform(1, 2, 4), draw.uniform(0.1, 0.9, bad)])
    share = weights[4:].sum() / weights.sum()
    found = vector(median(np.concatenate([honest, liars]), weights).adapter)
    assert np.linalg.norm(found) <= 2 * (1 - share) / (1 - 2 * share) * np.linalg.norm(honest, axis=1).max() * (
        1 + 1e-6
    )


def test_updates_that_differ_little_beside_their_size_are_weighed_as_exactly():
    """Values near three thousand that differ by a thousandth: with inner products around zero the distances would have
    four digits.
    """
    matrix = np.float32(1000 * np.pi + 0.001 * clouds(7, 6))
    found = median(matrix, before=np.full(4, 1000 * np.pi)).weights
    near = matrix.astype(np.float64) - 1000 * np.pi
    point = near.mean(axis=0)
    for _ in range(3000):
        pull = 1 / np.maximum(SMOOTHING, np.linalg.norm(near - point, axis=1))
        point = pull @ near / pull.sum()
    np.testing.assert_allclose(found, pull / pull.sum(), rtol=1e-6)


def test_nearly_half_of_the_weight_at_the_end_of_the_world_does_not_wear_the_steps_out():
    """From the weighted mean every step would bring v nearer by a factor of 0.96 only: two thousand steps for 37
    digits.
    """
    honest, share = clouds(6, 5), 0.49
    everyone = np.concatenate([honest, np.full((1, 4), np.float32(3e37))])
    found = vector(median(everyone, [(1 - share) / 5] * 5 + [share]).adapter)
    assert np.linalg.norm(found) <= 2 * (1 - share) / (1 - 2 * share) * np.linalg.norm(honest, axis=1).max()


@pytest.mark.parametrize("size", [1e3, 1e9, 1e18, 3e37])
def test_how_far_away_a_liar_is_hardly_matters(size):
    """It pulls with its weight and no more, so all that changes is the direction's last digits."""
    honest = clouds(4, 5)
    found = [
        vector(median(np.concatenate([honest, np.full((2, 4), np.float32(far))])).adapter) for far in (size, 10 * size)
    ]
    np.testing.assert_allclose(found[0], found[1], atol=5e3 / size + 1e-4)


def test_equal_updates_share_as_their_weights_say():
    matrix = np.array([[0.0, 96, 96]] + [[96.0, 96, 96]] * 4, dtype=np.float32)
    found = median(matrix, [1, 1, 2, 3, 4])
    np.testing.assert_allclose(np.array(found.weights[1:]) / sum(found.weights[1:]), [0.1, 0.2, 0.3, 0.4], atol=1e-6)
