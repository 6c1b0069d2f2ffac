import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.aggregation.fedexp import FedExp
from fccl.aggregation.state import ServerState
from tests.aggregation.adapters import adapter, matrices, parts, vector, weights_for
from tests.examples import few


@settings(max_examples=few(100), deadline=None)
@given(matrices(st.integers(1, 7)), st.integers(0, 99), st.sampled_from([1e-6, 1e-3, 1.0]))
def test_the_step_is_the_formula(matrix, seed, epsilon):
    before = np.random.default_rng(seed).integers(-4, 4, matrix.shape[1]).astype(np.float64)
    weights = weights_for(matrix, seed)
    weights = weights / weights.sum()
    changes = matrix.astype(np.float64) - before
    mean = weights @ changes
    step = max(1.0, weights @ (changes**2).sum(axis=1) / (2 * (mean @ mean + epsilon)))
    result = FedExp(fedexp_epsilon=epsilon).aggregate(adapter(before), parts(matrix, weights), ServerState())
    scale = 1e-5 * max(1.0, np.abs(step * mean).max(), np.abs(before).max())
    np.testing.assert_allclose(vector(result.adapter), before + step * mean, rtol=1e-4, atol=scale)


def test_with_equal_weights_it_is_the_paper_s_step():
    """Two changes at a right angle, of length 2: sum ‖Δ_i‖² / (2 M ‖Δ‖²) = 8 / (2 · 2 · 2) = 1; of four, 2."""
    for count, step in ((2, 1.0), (4, 2.0)):
        rows = 2.0 * np.eye(count)
        result = FedExp(fedexp_epsilon=1e-12).aggregate(adapter(np.zeros(count)), parts(rows), ServerState())
        assert vector(result.adapter) == pytest.approx(step * rows.mean(axis=0))


def test_changes_that_cancel_move_no_farther_than_epsilon_lets_them():
    """η ‖Δ‖ = sum ‖Δ_i‖² ‖Δ‖ / (2 M (‖Δ‖² + ε)) is at most the mean of ‖Δ_i‖² over 4 √ε."""
    rows = np.array([[1.0, 0.01], [-1.0, 0.01]])
    moved = FedExp(fedexp_epsilon=1e-3).aggregate(adapter(np.zeros(2)), parts(rows), ServerState()).adapter
    assert np.linalg.norm(vector(moved)) <= (rows**2).sum() / 2 / (4 * np.sqrt(1e-3)) + 1e-6
