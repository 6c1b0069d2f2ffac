import math
import weakref

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fccl.aggregation.mean import weighted_mean
from fccl.contribution.leave_one_out import OVERFLOW, LeaveOneOut, means_without_one
from fccl.contribution.reported import proportional
from fccl.testing.quadratic import Quadratic, flat, task, update, updates
from fccl.testing.toy import adapter

number = st.floats(-3, 3, width=32)
row = st.tuples(number, number, number)


@st.composite
def rounds(draw, min_size=1):
    given_rows = draw(st.lists(row, min_size=min_size, max_size=9))
    return updates(given_rows, draw(st.lists(st.integers(1, 100), min_size=len(given_rows), max_size=len(given_rows))))


@settings(deadline=None)
@given(rounds(min_size=2))
def test_each_mean_is_that_of_the_others(given_updates):
    prior = proportional([each.contribution.num_samples for each in given_updates])
    for index, mean in enumerate(means_without_one(adapter(), given_updates, prior)):
        others = [
            (weight, each.adapter)
            for place, (weight, each) in enumerate(zip(prior, given_updates, strict=True))
            if place != index
        ]
        total = math.fsum(weight for weight, _ in others)
        assert flat(mean) == pytest.approx(
            flat(weighted_mean((weight / total, each) for weight, each in others)), abs=1e-5
        )


def test_a_huge_update_leaves_no_trace_in_the_mean_of_the_others():
    given_updates = updates([(1.0, 2.0, 3.0), (3e38, -3e38, 3e38), (3.0, 2.0, 1.0)])
    means = list(means_without_one(adapter(), given_updates, (1 / 3,) * 3))
    assert list(flat(means[1])) == [2.0, 2.0, 2.0]


def test_where_there_is_no_other_the_round_s_adapter_stands_in():
    assert [
        flat(mean).tolist() for mean in means_without_one(adapter(1.0, 2.0, 3.0), updates([(9.0, 9.0, 9.0)]), (1.0,))
    ] == [[1.0, 2.0, 3.0]]
    weighing = LeaveOneOut(Quadratic()).weigh(task((1.0, 0.0, 0.0)), updates([(0.5, 0.0, 0.0)]))
    assert (weighing.weights, weighing.scores) == ((1.0,), (0.5 - 0.125,))


def test_a_few_adapters_and_log_n_sums_are_in_memory():
    alive, most, loads = weakref.WeakSet(), 0, 0

    class Kept:
        def load(self):
            nonlocal most, loads
            loaded = adapter(1.0, 2.0, 3.0)
            alive.add(loaded)
            most, loads = max(most, len(alive)), loads + 1
            return loaded

    many = [update(index, (), kept=Kept()) for index in range(64)]
    for _ in means_without_one(adapter(), many, (1 / 64,) * 64):
        pass
    assert most <= 3
    assert loads == 64 * 6


@settings(deadline=None)
@given(rounds(min_size=2), row, st.floats(0.125, 8))
def test_scores_and_weights_are_the_formula(given_updates, target, temperature):
    rule = LeaveOneOut(Quadratic(target=target), temperature)
    weighing = rule.weigh(task(), given_updates)
    matrix, prior = np.array([flat(each.adapter) for each in given_updates]), np.array(weighing.verification.prior)

    def loss(weights):
        return 0.5 * np.sum((weights @ matrix / weights.sum() - target) ** 2)

    scores = np.array(
        [loss(np.where(np.arange(len(prior)) == index, 0, prior)) - loss(prior) for index in range(len(prior))]
    )
    assert weighing.scores == pytest.approx(scores, rel=1e-4, abs=1e-5)
    assume(np.abs(scores).max() > 0.01)
    expected = prior * np.exp(scores / np.abs(scores).max() / temperature)
    assert weighing.weights == pytest.approx(expected / expected.sum(), abs=1e-3)
    assert weighing.verification.loss_weights == pytest.approx(loss(np.array(weighing.weights)), rel=1e-3, abs=1e-5)


def test_a_client_that_helps_gains_one_that_harms_loses_and_one_that_does_neither_stays_between():
    given_updates = updates([(1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (-1.0, 0.0, 0.0)])
    weighing = LeaveOneOut(Quadratic(target=(1.0, 0.0, 0.0))).weigh(task(), given_updates)
    assert weighing.scores[0] > 0 > weighing.scores[2]
    assert weighing.scores[1] == pytest.approx(0)
    assert weighing.weights[0] > weighing.weights[1] > weighing.weights[2] > 0


def test_copies_lessen_each_other_and_still_count_most_where_they_are_what_is_wanted():
    one, nothing, wrong = (1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (-1.0, 0.0, 0.0)
    rule = LeaveOneOut(Quadratic(target=one))
    alone, twice = (
        rule.weigh(task(), updates([one, nothing, wrong])),
        rule.weigh(task(), updates([one, one, nothing, wrong])),
    )
    assert twice.scores[:2] == pytest.approx(
        (0.21875, 0.21875)
    )  # the mean is 1/4, without one of them 0: 1/2 - (3/4)²/2
    assert 0 < twice.scores[0] < alone.scores[0]
    assert sum(twice.weights[:2]) > 0.9


def test_a_client_without_which_the_loss_overflows_has_the_largest_score():
    """The mean of all is 0; without the first it is so far out that its loss is none, without another it is not."""
    given_updates = updates([(-1.6, 0.0, 0.0), (0.8, 0.0, 0.0), (0.8, 0.0, 0.0)])
    weighing = LeaveOneOut(Quadratic(limit=0.3)).weigh(task(), given_updates)
    assert weighing.scores == pytest.approx((OVERFLOW, 0.08, 0.08), rel=1e-5)
    assert weighing.weights[0] > weighing.weights[1] == weighing.weights[2]
    steep = LeaveOneOut(Quadratic(curvature=(100.0,) * 3, limit=30.0)).weigh(task(), given_updates)
    assert steep.scores == pytest.approx((8.0, 8.0, 8.0), rel=1e-5)


def test_a_client_that_makes_the_loss_overflow_has_the_least_score():
    weighing = LeaveOneOut(Quadratic(limit=0.28)).weigh(
        task(), updates([(0.8, 0.0, 0.0), (-0.8, 0.0, 0.0), (2.3, 0.0, 0.0)])
    )
    assert weighing.verification.loss_prior is None
    assert weighing.scores == (0.0, 0.0, -OVERFLOW)
    assert weighing.weights[2] < 0.5 * weighing.verification.prior[2]


def test_scores_within_the_rounding_of_the_loss_leave_the_prior():
    """The loss is half a million, so differences below half a nat are none."""
    rule = LeaveOneOut(Quadratic(target=(1000.0, 0.0, 0.0)))
    noise = rule.weigh(task(), updates([(0.0, 0.0, 0.0), (1e-4, 0.0, 0.0)], [3, 1]))
    assert noise.weights == noise.verification.prior
    told = rule.weigh(task(), updates([(0.0, 0.0, 0.0), (1.0, 0.0, 0.0)], [3, 1]))
    assert told.weights[1] > told.verification.prior[1]


@settings(deadline=None)
@given(row, st.integers(2, 6), st.sampled_from(["samples", "uniform"]))
def test_copies_of_one_update_all_count_for_nothing_so_the_prior_stays(numbers, clients, prior):
    weighing = LeaveOneOut(Quadratic(target=(5.0, 5.0, 5.0)), prior=prior).weigh(
        task(), updates([numbers] * clients, range(1, clients + 1))
    )
    assert weighing.weights == weighing.verification.prior


@settings(deadline=None)
@given(rounds(min_size=2), st.sampled_from([-1.0, 10.0, 1e9, 1e30]))
def test_weights_are_finite_whatever_is_sent(given_updates, factor):
    hostile = [update(0, np.clip(flat(given_updates[0].adapter) * factor, -3e38, 3e38)), *given_updates[1:]]
    weighing = LeaveOneOut(Quadratic(limit=1e6)).weigh(task(), hostile)
    assert all(map(math.isfinite, (*weighing.weights, *weighing.scores)))
    assert math.fsum(weighing.weights) == pytest.approx(1)
