import numpy as np
import pytest
from hypothesis import given, settings

from fccl.contribution.greedy_soup import GreedySoup
from fccl.testing.quadratic import Quadratic, flat, task, updates
from tests.contribution.strategies import quadratics, rounds
from tests.examples import few


def recipe(loss, matrix):
    """The paper's algorithm 1, on losses instead of accuracies: the members."""

    def value(point):
        return 0.5 * np.array(loss.curvature) @ (point - loss.target) ** 2

    members = []
    for place in sorted(range(len(matrix)), key=lambda place: value(matrix[place])):
        best = value(matrix[members].mean(axis=0)) if members else np.inf
        tried = value(matrix[[*members, place]].mean(axis=0))
        if abs(tried - best) < 1e-6 * max(1.0, best):
            return None  # rounding decides
        members += [place] if tried < best else []
    return members


@settings(max_examples=few(150), deadline=None)
@given(rounds(), quadratics)
def test_the_members_are_those_of_the_recipe(given_updates, loss):
    matrix = np.array([flat(one.adapter) for one in given_updates])
    members = recipe(loss, matrix)
    if members is None or len(set(map(tuple, matrix))) < len(matrix):
        return
    found = GreedySoup(loss).weigh(task(), given_updates)
    expected = [1 / len(members) if place in members else 0.0 for place in range(len(matrix))]
    assert found.weights == pytest.approx(expected)
    assert found.verification.passes <= 2 * len(matrix) - 1


def test_the_soup_is_never_worse_than_its_best_client():
    loss = Quadratic((1.0, 1.0, 0.0))
    found = GreedySoup(loss).weigh(task(), updates([(1.5, 1.0, 0.0), (0.5, 1.0, 0.0), (-9.0, 0.0, 0.0)]))
    assert found.weights == (0.5, 0.5, 0.0)
    assert found.verification.loss_weights == 0.0
    assert found.scores == pytest.approx((-0.125, -0.125, -50.5))


def test_a_client_without_a_loss_is_no_member_and_scores_below_all_others():
    rows = [(1.0, 0.0, 0.0), (9.0, 0.0, 0.0), (0.5, 0.0, 0.0)]
    found = GreedySoup(Quadratic(limit=4.0)).weigh(task(), updates(rows))
    assert found.weights == (0.0, 0.0, 1.0)
    assert found.scores[1] == min(found.scores) == -1.5
