import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.contribution.combinations import Combinations, in_client_order, reordered
from fccl.contribution.protocol import Weighing
from fccl.contribution.verified import mean_of
from fccl.records.run import Verification
from fccl.testing.quadratic import Quadratic, flat, task, update, updates
from tests.contribution.strategies import quadratics, rounds, row
from tests.examples import few

START = (1.0, -2.0, 0.5)


@settings(max_examples=few(100), deadline=None)
@given(rounds(), quadratics, st.lists(st.floats(-2, 2), min_size=7, max_size=7), row)
def test_loss_and_slopes_are_those_of_the_combination(given_updates, loss, numbers, start):
    coefficients, mix = numbers[: len(given_updates)], Combinations(loss, task(start), given_updates)
    changes = np.array([flat(one.adapter) for one in given_updates]) - start  # (n, 3)
    point = start + coefficients @ changes
    gradient = np.array(loss.curvature) * (point - loss.target)
    expected = 0.5 * np.array(loss.curvature) @ (point - loss.target) ** 2
    found, slopes = mix.slopes(coefficients)
    assert found == mix.at(coefficients) == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert slopes == pytest.approx(changes @ gradient, rel=1e-4, abs=1e-3)
    assert mix.passes == 2


@settings(max_examples=few(50), deadline=None)
@given(rounds())
def test_with_weights_it_is_the_mean_that_the_federation_makes_to_the_bit(given_updates):
    mix = Combinations(Quadratic(), task(START), given_updates)
    assert mix.adapter(mix.by_samples).sha256 == mean_of(given_updates, mix.by_samples).sha256


def test_a_combination_beyond_float32_has_no_loss_and_costs_no_pass():
    mix = Combinations(Quadratic(), task(), updates([(3e38, 0, 0), (3e38, 0, 0)]))
    assert mix.at((1.5, 1.5)) == math.inf
    assert mix.slopes((1.5, 1.5))[0] == math.inf
    assert mix.passes == 0


def test_an_update_without_a_coefficient_is_not_loaded():
    class Unreadable:
        def load(self):
            raise AssertionError("read")

    mix = Combinations(Quadratic(), task(), [update(0, (1, 2, 3)), update(1, (), kept=Unreadable())])
    assert flat(mix.adapter((0.5, 0.0))).tolist() == [0.5, 1.0, 1.5]


def test_a_rule_sees_the_clients_in_order_and_its_answer_is_in_that_of_the_updates():
    class ByPlace:
        @in_client_order
        def weigh(self, task, updates):
            seen = tuple(float(one.client_id) for one in updates)
            return Weighing((0.5, 0.3, 0.2), seen, Verification(examples=1, prior=(0.1, 0.2, 0.7)), stretch=(1, 2, 3))

    found = ByPlace().weigh(task(), [update(7, (1, 1, 1)), update(2, (2, 2, 2)), update(5, (3, 3, 3))])
    assert found.scores == (7.0, 2.0, 5.0)
    assert (found.weights, found.stretch) == ((0.2, 0.5, 0.3), (3, 1, 2))
    assert found.verification.prior == (0.7, 0.1, 0.2)


def test_what_a_weighing_does_not_have_stays_empty():
    assert reordered(Weighing((0.5, 0.5), (1.0, 2.0)), [1, 0]) == Weighing((0.5, 0.5), (2.0, 1.0))
