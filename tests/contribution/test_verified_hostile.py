"""Verified weights where clients send hostile or extreme updates."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.contribution.prior import FAR, shares
from fccl.contribution.verified import MOST, Verified, centred, mean_of, unit, weighted_median
from fccl.testing.quadratic import Quadratic, flat, task, update, updates
from tests.contribution.strategies import rounds, rules


@settings(deadline=None)
@given(rounds(min_size=2), st.sampled_from([-1.0, 10.0, -10.0, 1e3, 1e9, 1e18, 1e38]), st.data())
def test_weights_stay_finite_whatever_a_client_sends(given_updates, factor, data):
    numbers = np.clip(flat(given_updates[0].adapter) * factor, -3e38, 3e38)
    hostile = [update(0, numbers, 5), *given_updates[1:]]
    rule = data.draw(rules)
    weighing = rule.weigh(task(), hostile)
    assert math.fsum(weighing.weights) == pytest.approx(1, abs=1e-12)
    assert all(map(math.isfinite, (*weighing.weights, *weighing.scores, *weighing.verification.slopes)))
    assert mean_of(hostile, weighing.weights).sha256


def colluders(seed, clients):
    """Honest clients who all go most of the way to where the loss is least, each with an error of its own, and the last
    with three times that, the other way."""
    draw = np.random.default_rng(seed)
    target = draw.normal(size=3)
    rows = [(0.8 * target + 0.15 * draw.normal(size=3) * np.linalg.norm(target)) for _ in range(clients)]
    rows[-1] = -3 * rows[-1]
    return (
        Quadratic(target=tuple(target), curvature=tuple(draw.uniform(0.5, 2, size=3))),
        rows,
        list(draw.integers(1, 20, size=clients)),
    )


factors = st.floats(-1e6, 1e6) | st.sampled_from([0.0, 0.5, -1.0, 2.0, 2.9, 3.1, 10.0, -10.0, 50.0, 99.0, 1e30])


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 8), factors)
def test_whatever_factor_one_client_s_update_has_an_attacker_gains_nothing_by_it(seed, clients, factor):
    """Client 0 is sacrificed for the last, whose update goes three times as far in the wrong direction."""
    loss, rows, samples = colluders(seed, clients)
    honest = Verified(loss).weigh(task(), updates(rows, samples)).weights[-1]
    attacked = Verified(loss).weigh(task(), updates([factor * rows[0], *rows[1:]], samples)).weights[-1]
    assert attacked <= honest + 0.05
    assert attacked < 0.06


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 8), st.floats(4, 1e6), st.floats(1.01, 1e6))
def test_farther_than_far_is_no_farther(seed, clients, far, farther):
    """Beyond the limit its prior times its change, and all slopes, are the same: only how the rest of the weight is
    divided by their sum differs.
    """
    _, rows, samples = colluders(seed, clients)
    middle = sorted(map(np.linalg.norm, rows[1:]))[-1]
    rows[0] *= middle / np.linalg.norm(rows[0])
    one, other = (
        shares(task(), updates([factor * FAR * rows[0], *rows[1:]], samples)) for factor in (far, far * farther)
    )
    assert one[0] * far == pytest.approx(other[0] * far * farther, rel=1e-4)
    assert one[1:] == other[1:]


@settings(deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8), st.data(), st.floats(1, 1e30))
def test_a_steep_slope_makes_the_unit_longer_by_its_client_s_weight_alone(slopes, data, factor):
    weights = np.array(data.draw(st.lists(st.floats(0.01, 1), min_size=len(slopes), max_size=len(slopes))))
    weights /= weights.sum()
    steep = [slopes[0] * factor, *slopes[1:]]
    others = math.fsum(weight * abs(slope) for weight, slope in zip(weights[1:], slopes[1:], strict=True))
    found = unit(steep, list(weights))
    assert found <= max(map(abs, steep))
    assert found <= MOST * (others + weights[0] * abs(steep[0])) * (1 + 1e-9) or found == max(map(abs, steep))
    assert found > 0 or not any(steep)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 9)), min_size=1, max_size=8))
def test_the_weighted_median_is_that_of_each_value_as_often_as_it_weighs(pairs):
    values, counts = zip(*pairs, strict=True)
    total = sum(counts)
    repeated = sorted(value for value, count in pairs for _ in range(count))
    assert weighted_median(values, [count / total for count in counts]) == repeated[(total - 1) // 2]


@settings(deadline=None)
@given(st.integers(0, 1000), st.sampled_from([30.0, 1e6, 1e30]), st.sampled_from([1.0, -1.0]))
def test_an_update_far_out_hardly_moves_the_mean(seed, factor, sign):
    """Its slope is steep and so is the loss; whatever the others are told by that, it ends with next to nothing."""
    draw = np.random.default_rng(seed)
    target = np.array([1.0, 0.5, 0.0])
    honest = [target + 0.3 * draw.normal(size=3) for _ in range(3)]
    weighing = Verified(Quadratic(target=tuple(target))).weigh(task(), updates([*honest, sign * factor * target]))
    assert weighing.weights[-1] * factor < 1.0
    # The honest updates alone are up to 0.5 from the target; of all 1,001 draws the worst has 0.70 of the loss of no
    # update at all.
    assert weighing.verification.loss_weights < 0.75 * float(target @ target) / 2


def test_where_no_loss_is_finite_the_weights_are_the_prior():
    weighing = Verified(Quadratic(limit=-1.0)).weigh(task(), updates([(1.0, 0.0, 0.0), (2.0, 0.0, 0.0)], [3, 1]))
    assert weighing.weights == (0.75, 0.25)
    assert weighing.verification.path == (None,)
    assert (weighing.verification.loss_prior, weighing.verification.loss_weights) == (None, None)


def test_an_iterate_that_overflows_ends_the_path_and_is_not_taken():
    """The first step leads over the edge: the loss there is infinite, and the prior stands."""

    class Cliff(Quadratic):
        def slopes(self, task, adapter, directions):
            loss, slopes = super().slopes(task, adapter, directions)
            return (loss, slopes) if flat(adapter)[0] < 0.6 else (math.inf, (math.nan,) * len(slopes))

    weighing = Verified(Cliff(target=(1.0, 0.0, 0.0))).weigh(task(), updates([(1.0, 0.0, 0.0), (0.0, 0.0, 0.0)]))
    assert weighing.verification.path == (0.125, None)
    assert weighing.weights == (0.5, 0.5)


@settings(deadline=None)
@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=8), st.data())
def test_centred_slopes_have_mean_zero(slopes, data):
    weights = np.array(data.draw(st.lists(st.floats(0.01, 1), min_size=len(slopes), max_size=len(slopes))))
    weights /= weights.sum()
    parts = centred(slopes, list(weights))
    assert abs(math.fsum(weight * part for weight, part in zip(weights, parts, strict=True))) <= 1e-9 * max(
        1e-300, *map(abs, slopes)
    )


def test_slopes_that_differ_by_rounding_alone_are_alike():
    assert centred([3.0, 3.0 + 1e-12], [0.5, 0.5]) == (0.0, 0.0)
    assert centred([3.0, 3.0 + 1e-6], [0.5, 0.5]) == pytest.approx((-5e-7, 5e-7))
