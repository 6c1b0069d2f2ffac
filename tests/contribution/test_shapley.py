import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from fccl.contribution.shapley import MOST_CLIENTS, Shapley, agreement, rank_correlation, shapley_values
from fccl.errors import FederationError
from fccl.testing.quadratic import Quadratic, flat, task, updates
from tests.contribution.strategies import quadratics, rounds, row
from tests.examples import few


def by_orders(value, count):
    """Shapley's own definition: the mean over all orders of what each adds to those before it."""
    found = np.zeros(count)
    for order in itertools.permutations(range(count)):
        for place, player in enumerate(order):
            found[player] += value(order[: place + 1]) - value(order[:place])
    return found / math.factorial(count)


@settings(max_examples=few(60), deadline=None)
@given(rounds(min_size=1, max_size=5), quadratics, row)
def test_scores_are_the_mean_over_all_orders_of_what_a_client_adds(given_updates, loss, start):
    matrix = np.array([flat(one.adapter) for one in given_updates])
    samples = np.array([float(one.contribution.num_samples) for one in given_updates])

    def value(members):
        chosen = list(members)
        point = samples[chosen] @ matrix[chosen] / samples[chosen].sum() if chosen else np.array(start)
        return -0.5 * np.array(loss.curvature) @ (point - loss.target) ** 2

    found = Shapley(loss).weigh(task(start), given_updates)
    assert found.scores == pytest.approx(by_orders(value, len(matrix)), rel=1e-4, abs=1e-4)
    assert math.fsum(found.scores) == pytest.approx(value(range(len(matrix))) - value(()), rel=1e-4, abs=1e-4)
    assert found.verification.passes == 2 ** len(matrix) + 1


@settings(max_examples=few(60), deadline=None)
@given(st.integers(1, 5).flatmap(lambda n: st.lists(st.integers(-9, 9), min_size=2**n, max_size=2**n)))
def test_values_of_any_game_are_those_of_the_definition(values):
    count = len(values).bit_length() - 1
    found = shapley_values([float(value) for value in values])
    assert found == pytest.approx(by_orders(lambda members: values[sum(1 << each for each in members)], count))


def test_who_helps_gains_who_harms_loses_and_copies_share():
    rows = [(1.0, 0.0, 0.0), (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)]
    found = Shapley(Quadratic((1.0, 0.0, 0.0))).weigh(task(), updates(rows))
    assert found.scores[0] == pytest.approx(found.scores[1])
    assert found.scores[0] > 0 > found.scores[2]
    assert found.weights[0] > 1 / 3 > found.weights[2] > 0


def test_more_clients_than_it_can_are_one_line_with_a_way_out():
    with pytest.raises(FederationError, match="exact Shapley values of 9 clients need 512 losses") as caught:
        Shapley(Quadratic()).weigh(task(), updates([(1, 2, 3)] * (MOST_CLIENTS + 1)))
    assert "leave_one_out" in caught.value.hint
    assert agreement(Quadratic(), task(), updates([(1, 2, 3)] * 9), [1 / 9] * 9) is None


def test_coalitions_without_a_loss_count_as_worse_than_all_others():
    found = Shapley(Quadratic(limit=2.0)).weigh(task(), updates([(1.0, 0.0, 0.0), (9.0, 0.0, 0.0)]))
    assert all(map(math.isfinite, found.scores))
    assert found.scores[0] > found.scores[1]


@settings(max_examples=few(100), deadline=None)
@given(st.integers(2, 8).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 4), min_size=n, max_size=n)] * 2)))
def test_the_rank_correlation_is_scipy_s(pair):
    one, other = pair
    found = rank_correlation(one, other)
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(one, other).statistic)


def test_weights_by_shapley_agree_with_it_and_their_opposite_does_not():
    given_updates = updates([(1.0, 0.0, 0.0), (0.5, 0.3, 0.0), (-1.0, 0.0, 0.0), (0.0, 0.1, 0.0)])
    loss = Quadratic((1.0, 0.0, 0.0))
    weights = Shapley(loss).weigh(task(), given_updates).weights
    assert agreement(loss, task(), given_updates, weights) == 1.0
    assert agreement(loss, task(), given_updates, [-weight for weight in weights]) == -1.0
    assert agreement(loss, task(), given_updates, [0.25] * 4) is None
