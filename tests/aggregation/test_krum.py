"""Against the paper's definition, written out with every distance by itself."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.aggregation.krum import Krum, MultiKrum
from fccl.aggregation.state import ServerState
from fccl.aggregation.vectors import gram, squared_distances
from fccl.errors import FederationError
from tests.aggregation.adapters import adapter, matrices, parts, vector


def ranking_by_hand(matrix, bad):
    matrix, clients = matrix.astype(np.float64), len(matrix)
    scores = []
    for i in range(clients):
        distances = sorted(sum((matrix[i] - matrix[j]) ** 2) for j in range(clients) if j != i)
        scores.append(sum(distances[: clients - bad - 2]))
    return np.argsort(scores, kind="stable")


def clouds(seed, clients, spread=1.0):
    return np.random.default_rng(seed).normal(scale=spread, size=(clients, 6)).astype(np.float32)


@given(seed=st.integers(0, 9999), clients=st.integers(5, 11), bad=st.integers(0, 4))
@settings(deadline=None)
def test_chooses_as_the_paper_does(seed, clients, bad):
    bad = min(bad, (clients - 3) // 2)
    matrix = clouds(seed, clients)
    ranked = ranking_by_hand(matrix, bad)
    one = Krum(max_bad_clients=bad).aggregate(adapter(np.zeros(6)), parts(matrix), ServerState())
    np.testing.assert_array_equal(vector(one.adapter), matrix[ranked[0]])
    assert np.flatnonzero(one.weights).tolist() == [ranked[0]]
    for keep in (1, 2, clients - bad, 0):
        several = MultiKrum(max_bad_clients=bad, krum_keep=keep).aggregate(
            adapter(np.zeros(6)), parts(matrix), ServerState()
        )
        chosen = ranked[: keep or clients - bad]
        np.testing.assert_allclose(vector(several.adapter), matrix[chosen].mean(axis=0), atol=1e-6)


@given(matrices(st.integers(1, 7)), st.integers(0, 99))
@settings(deadline=None)
def test_distances_are_the_distances_from_wherever_they_are_measured(matrix, seed):
    before = np.random.default_rng(seed).normal(size=matrix.shape[1])
    found = squared_distances(gram(adapter(before), parts(matrix))).numpy()
    for i, j in itertools.product(range(len(matrix)), repeat=2):
        expected = np.sum((matrix[i].astype(np.float64) - matrix[j]) ** 2)
        np.testing.assert_allclose(found[i, j], expected, rtol=1e-9, atol=1e-9)


def test_an_extreme_update_does_not_blur_the_distances_of_the_others():
    matrix = clouds(3, 6)
    matrix[2] = 3e38
    found = squared_distances(gram(adapter(np.zeros(6)), parts(matrix)))
    others = [0, 1, 3, 4, 5]
    expected = torch.cdist(
        torch.from_numpy(matrix[others]).double(), torch.from_numpy(matrix[others]).double()
    ).square()
    torch.testing.assert_close(found[others][:, others], expected, rtol=1e-12, atol=1e-12)


@given(seed=st.integers(0, 9999), bad=st.integers(1, 3), size=st.sampled_from([0.1, 3.0, 1e6, 3e38]))
@settings(deadline=None)
def test_liars_cannot_take_the_result_far_from_the_honest(seed, bad, size):
    """Whoever is chosen has, among its n - f - 2 nearest, honest updates, and a score no worse than an honest one's."""
    clients = 2 * bad + 3
    honest = clouds(seed, clients - bad)
    direction = np.random.default_rng(seed).uniform(-1, 1, 6)
    liars = np.float32(size * direction + 0.001 * clouds(seed + 1, bad))
    result = Krum(max_bad_clients=bad).aggregate(
        adapter(np.zeros(6)), parts(np.concatenate([liars, honest])), ServerState()
    )
    apart = max(np.linalg.norm(a - b) for a, b in itertools.combinations(honest.astype(np.float64), 2))
    nearest = min(np.linalg.norm(vector(result.adapter) - row) for row in honest)
    assert nearest <= np.sqrt(clients - bad - 2) * apart * (1 + 1e-6)


def test_scaled_and_flipped_updates_are_left_out():
    honest = 1 + clouds(5, 6, spread=0.1)
    everyone = np.concatenate([honest, -honest[:1], 10 * honest[1:2]])
    result = MultiKrum(max_bad_clients=2).aggregate(adapter(np.zeros(6)), parts(everyone), ServerState())
    assert result.weights == (1 / 6,) * 6 + (0.0, 0.0)


def test_keeping_more_than_there_are_is_an_error():
    with pytest.raises(FederationError, match="KRUM_KEEP=6 needs at least 6 updates a round, and there are 5"):
        MultiKrum(krum_keep=6).aggregate(adapter(np.zeros(6)), parts(clouds(0, 5)), ServerState())


@pytest.mark.parametrize(("rule", "kept"), [(Krum(), 1), (MultiKrum(), 4)])
def test_of_equals_the_first_clients_are_taken(rule, kept):
    found = rule.weigh(adapter(np.zeros(3)), parts(np.ones((5, 3))))
    assert found == tuple(1 / kept if place < kept else 0.0 for place in range(5))
