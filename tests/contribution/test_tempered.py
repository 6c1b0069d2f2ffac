"""Tempered weights: what the formula promises, and what no client can do to another."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fccl.contribution.prior import shares
from fccl.contribution.protocol import Remembering
from fccl.contribution.stretch import sent
from fccl.contribution.tempered import LONGEST, LOWEST, Tempered, next_gamma
from fccl.testing.quadratic import Quadratic, flat, task, update, updates
from tests.contribution.strategies import rounds, row
from tests.examples import few

seeds = st.integers(0, 10_000)


def noisy(target, width, seed=0, groups=8, curvature=(1.0, 1.0, 1.0)):
    """A loss whose groups of examples have targets of their own, so wide apart."""
    apart = np.random.default_rng(seed).normal(size=(groups, 3)) * width
    return Quadratic(tuple(target), curvature, apart=tuple(map(tuple, apart - apart.mean(axis=0))))


losses = st.builds(noisy, target=row, width=st.sampled_from([0.0, 0.1, 1.0, 10.0]), seed=seeds)


def loss_at(loss, given_updates, coefficients):
    point = np.array(coefficients) @ np.array([flat(one.adapter) for one in given_updates])
    return 0.5 * float(np.array(loss.curvature) @ (point - loss.target) ** 2)


def fedavg(given_updates):
    samples = np.array([one.contribution.num_samples for one in given_updates], dtype=float)
    return samples / samples.sum()


# --- the formula


def short(seed, clients):
    """A target, and changes that all fall short of it in every number, some far more than others."""
    target = np.array([3.0, 3.0, 3.0])
    return target, target * np.random.default_rng(seed).uniform(0.2, 0.8, size=(clients, 3))


@settings(max_examples=few(60), deadline=None)
@given(seeds, st.integers(2, 8), st.floats(1, 20), st.data())
def test_two_clients_whom_nobody_leaves_out_never_count_further_apart_than_the_ratio(seed, clients, ratio, data):
    samples = data.draw(st.lists(st.integers(1, 50), min_size=clients, max_size=clients))
    target, rows = short(seed, clients)
    given_updates = updates(rows, samples)
    found = Tempered(noisy(target, 0.05, seed), ratio=ratio).weigh(task(), given_updates)
    assert found.scores == pytest.approx(np.log(np.array(found.weights) / fedavg(given_updates)))
    assert max(found.scores) - min(found.scores) <= math.log(ratio) + 1e-9


@settings(max_examples=few(60), deadline=None)
@given(seeds, st.integers(2, 8), st.floats(1, 9))
def test_equal_clients_are_effective_ones_as_kantorovich_says(seed, clients, ratio):
    """With weights within a factor R of each other 1 / sum w² ≥ 4R / (1 + R)² n."""
    target, rows = short(seed, clients)
    weights = Tempered(noisy(target, 0.05, seed), ratio=ratio).weigh(task(), updates(rows)).weights
    assert 1 / sum(weight**2 for weight in weights) >= 4 * ratio / (1 + ratio) ** 2 * clients - 1e-9


@settings(max_examples=few(60), deadline=None)
@given(losses, rounds())
def test_it_never_ends_above_where_those_who_stay_would_have_ended(loss, given_updates):
    found = Tempered(loss).weigh(task(), given_updates)
    assert found.verification.loss_weights == min(found.verification.path) <= found.verification.loss_prior
    believed = np.array(shares(task(), given_updates))
    coefficients = np.array(sent(found))
    spread = found.verification.path[found.verification.taken]
    assert loss_at(loss, given_updates, coefficients) == pytest.approx(spread, rel=1e-4, abs=1e-4)
    assert (coefficients <= LONGEST * believed + 1e-9).all()


@settings(max_examples=few(60), deadline=None)
@given(rounds(), row)
def test_where_the_examples_are_of_one_topic_the_result_is_fedavg(given_updates, target):
    """Nobody knows the noise then."""
    assume(min(shares(task(), given_updates)) == 1)
    found = Tempered(Quadratic(target)).weigh(task(), given_updates)
    assert found.stretch == ()
    assert found.weights == pytest.approx(fedavg(given_updates))


@settings(max_examples=few(60), deadline=None)
@given(seeds, st.integers(2, 8), st.floats(0.01, 100))
def test_the_more_the_topics_disagree_the_nearer_the_weights_are_to_the_prior(seed, clients, width):
    """A is as wide as the target is far, or so many times as wide."""
    target, rows = short(seed, clients)
    apart = [
        np.abs(Tempered(noisy(target, times, seed)).weigh(task(), updates(rows)).scores).max()
        for times in (0.01, 100.0 * (1 + width))
    ]
    assert apart[1] <= apart[0] + 1e-9


@settings(max_examples=few(60), deadline=None)
@given(losses, row, st.integers(2, 8))
def test_equal_clients_weigh_the_same(loss, numbers, clients):
    found = Tempered(loss).weigh(task(), updates([numbers] * clients))
    assert found.weights == pytest.approx((1 / clients,) * clients)


def test_the_step_is_as_long_as_the_loss_likes_and_no_longer_than_it_may_be():
    """All go half of the way: gamma 2 is where L is least; a tenth of the way would be 10."""
    target = np.array([2.0, -1.0, 1.0])
    for part, gamma in ((0.5, 2.0), (2.0, 0.5), (1.0, 1.0), (0.1, LONGEST)):
        found = Tempered(noisy(target, 0.01), steps=8).weigh(task(), updates([part * target] * 3))
        assert (found.stretch or (1.0,))[0] == pytest.approx(gamma, rel=0.02)


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.1, 3), st.floats(0.1, 3))
def test_gamma_moves_against_the_slope_and_by_a_bounded_factor(before_slope, slope, before, now):
    found = next_gamma(before, before_slope, now, slope)
    assert now / 1.6 - 1e-12 <= found <= min(now * 1.6, LONGEST) + 1e-12
    assert (found - now) * slope <= 1e-12


# --- hostile clients


def colluders(seed, clients):
    """Honest clients who all go most of the way to where the loss is least, each with an error of its own, and the last
    with three times that, the other way.
    """
    draw = np.random.default_rng(seed)
    target = draw.normal(size=3)
    target *= 2 / np.linalg.norm(target)
    rows = [(0.8 * target + 0.15 * draw.normal(size=3) * np.linalg.norm(target)) for _ in range(clients)]
    rows[-1] = -3 * rows[-1]
    loss = noisy(target, 0.2, seed, curvature=tuple(draw.uniform(0.5, 2, size=3)))
    return loss, rows, list(draw.integers(1, 20, size=clients))


factors = st.floats(-1e6, 1e6) | st.sampled_from([0.0, 0.5, -1.0, 2.0, 2.9, 3.1, 10.0, -10.0, 50.0, 99.0, 1e30])


@settings(max_examples=few(200), deadline=None)
@given(seeds, st.integers(4, 8), factors)
def test_whatever_factor_one_client_s_update_has_an_attacker_gains_nothing_by_it(seed, clients, factor):
    """Client 0 is sacrificed for the last, whose update goes three times as far in the wrong direction."""
    loss, rows, samples = colluders(seed, clients)
    honest = Tempered(loss).weigh(task(), updates(rows, samples)).weights[-1]
    attacked = Tempered(loss).weigh(task(), updates([factor * rows[0], *rows[1:]], samples)).weights[-1]
    assert attacked <= honest + 0.05
    assert attacked < 0.06


@settings(max_examples=few(60), deadline=None)
@given(seeds, st.integers(4, 8), st.sampled_from([-1.0, 10.0, -10.0, 1e3, 1e9, 1e18, 1e38]))
def test_a_change_that_is_too_long_moves_the_mean_by_a_bounded_length(seed, clients, factor):
    _, rows, samples = colluders(seed, clients)
    loss = noisy((1.0, 0.5, 0.0), 0.2, seed)
    rows[0] = np.clip(np.array(rows[0]) * factor, -3e38, 3e38)
    found = Tempered(loss).weigh(task(), updates(rows, samples))
    assert math.fsum(found.weights) == pytest.approx(1)
    lengths = np.abs(sent(found)) * np.array([np.linalg.norm(each) for each in rows])
    assert lengths[0] <= 3 * LONGEST * sorted(np.linalg.norm(each) for each in rows[1:])[-1] * (1 + 1e-6)


@settings(max_examples=few(60), deadline=None)
@given(seeds, st.integers(3, 8))
def test_the_weight_of_a_client_who_leads_uphill_falls_to_nothing(seed, clients):
    draw = np.random.default_rng(seed)
    target = draw.normal(size=3)
    target *= 2 / np.linalg.norm(target)
    rows = [*(0.6 * target + 0.1 * draw.normal(size=3) for _ in range(clients - 1)), -0.5 * target]
    found = Tempered(noisy(target, 0.1, seed)).weigh(task(), updates(rows))
    assert found.weights[-1] < 1e-6
    assert found.scores[-1] == min(found.scores) == LOWEST


def test_a_majority_that_leads_uphill_has_no_say():
    target = np.array([1.0, 1.0, 1.0])
    found = Tempered(noisy(target, 0.1)).weigh(task(), updates([0.5 * target] * 3 + [-0.5 * target] * 5))
    assert found.weights == pytest.approx((1 / 3,) * 3 + (0.0,) * 5)


def test_where_all_lead_uphill_somebody_stays():
    target = np.array([1.0, 1.0, 1.0])
    found = Tempered(noisy(target, 0.1)).weigh(task(), updates([-0.5 * target, -0.6 * target]))
    assert math.fsum(found.weights) == pytest.approx(1)
    assert max(found.stretch or (1.0,)) < 1


def test_where_no_loss_is_finite_the_weights_are_the_prior():
    found = Tempered(Quadratic(limit=-1.0)).weigh(task(), updates([(1.0, 0.0, 0.0), (2.0, 0.0, 0.0)], [3, 1]))
    assert (found.weights, found.stretch) == ((0.75, 0.25), ())
    assert found.verification.path == (None,)


# --- over rounds


def over_rounds(rule, given_rounds):
    """The weighings of one round after another."""
    for given_updates in given_rounds:
        found = rule.weigh(task(), given_updates)
        rule = rule.remembering(found.memory)
        yield found


def near(seed, noise, clients=6):
    """Late in a run: x is nearly where the loss is least, and changes are small beside what the topics differ by. The
    last client flips what it has learnt.
    """
    draw = np.random.default_rng(seed)
    target = np.full(3, 0.2)
    rows = [target * draw.uniform(0.5, 1.0) for _ in range(clients)]
    rows[-1] = -rows[-1]
    return noisy(target, noise, seed), rows


@settings(max_examples=few(40), deadline=None)
@given(st.lists(seeds, min_size=8, max_size=8, unique=True))
def test_who_led_uphill_in_every_round_does_not_come_back_in_a_noisy_one(drawn):
    """Eight rounds in which it can be told, then one in which it cannot: alone that one would let the client in."""
    memory = {}
    for told, changes in (near(seed, 0.05) for seed in drawn):
        memory = Tempered(told, memory=memory).weigh(task(), updates(changes)).memory
    loss, rows = near(drawn[0], 3.0)
    forgetful, found = (Tempered(loss, memory=known).weigh(task(), updates(rows)) for known in ({}, memory))
    assert found.weights[-1] < 1e-6
    assert found.weights[-1] <= forgetful.weights[-1]
    assert found.verification.standing[-1] > 0
    assert max(found.verification.standing[:-1]) < 2


@settings(max_examples=few(60), deadline=None)
@given(seeds, st.integers(4, 8), st.lists(factors, min_size=1, max_size=6))
def test_nor_does_an_attacker_gain_by_it_over_rounds(seed, clients, times):
    """Client 0 is sacrificed in every round, with another factor in each."""
    loss, rows, samples = colluders(seed, clients)
    sacrificed = [updates([factor * rows[0], *rows[1:]], samples) for factor in times]
    for found in over_rounds(Tempered(loss), sacrificed):
        assert found.weights[-1] < 0.06
        assert found.verification.standing[-1] > 0


@settings(max_examples=few(60), deadline=None)
@given(seeds, st.integers(2, 6), st.integers(1, 8))
def test_however_many_rounds_say_so_nobody_counts_further_apart_than_the_ratio(seed, clients, rounds_there):
    target, rows = short(seed, clients)
    given_rounds = [updates(rows)] * rounds_there
    for found in over_rounds(Tempered(noisy(target, 0.05, seed), ratio=7.0), given_rounds):
        assert max(found.scores) - min(found.scores) <= math.log(7.0) + 1e-9


@pytest.mark.parametrize(
    "numbers",
    [
        (),
        (9.0,),
        (1.0, 0.0, 1.0),
        (1.0, 0.0, -5.0, 0.0),
        (-1.0, 0.0, 1.0, 0.0),
        (1.0, 1e9, 1.0, 0.0),
        (1.0, 0.0, 1.0, 0.5),
        (float("nan"), 0.0, 1.0, 1.0),
        (1.0, 0.0, 1.0, 1.0, 1.0),
    ],
)
def test_numbers_that_the_rule_did_not_write_are_no_memory(numbers):
    loss, rows = near(0, 0.05)
    alone, given = (Tempered(loss, memory=known).weigh(task(), updates(rows)) for known in ({}, {0: numbers}))
    assert alone.weights == given.weights


@settings(max_examples=few(40), deadline=None)
@given(seeds, st.lists(st.sampled_from([-0.5, 0.5]), min_size=2, max_size=8))
def test_who_is_good_and_bad_by_turns_gains_nothing_by_it(seed, turns):
    """In each harmful round the client counts no more than it would have without any history."""
    target = np.array([1.5, -1.0, 1.0])
    loss, memory = noisy(target, 0.3, seed), {}
    for turn in turns:
        given_updates = updates([*[0.6 * target] * 4, turn * target])
        alone, found = (Tempered(loss, memory=known).weigh(task(), given_updates) for known in ({}, memory))
        memory = found.memory
        if turn < 0:
            assert found.weights[-1] <= alone.weights[-1] + 1e-9


def test_who_is_out_is_out_where_a_round_s_topics_tell_nothing_too():
    known = {2: (5.0, 0.0, 2.0, 1.0)}
    found = Tempered(Quadratic((1.0, 1.0, 1.0)), memory=known).weigh(task(), updates([(0.5, 0.5, 0.5)] * 3))
    assert found.weights == pytest.approx((0.5, 0.5, 0.0))
    assert found.memory == known


def test_where_everybody_is_out_all_stay():
    known = dict.fromkeys(range(2), (5.0, 0.0, 2.0, 1.0))
    found = Tempered(Quadratic((1.0, 1.0, 1.0)), memory=known).weigh(task(), updates([(0.5, 0.5, 0.5)] * 2, [3, 1]))
    assert found.weights == pytest.approx((0.75, 0.25))


def test_who_turns_is_left_out_in_the_round_in_which_it_turns():
    """A good name does not help: each round is also judged alone."""
    target = np.array([2.0, -1.0, 1.0])
    loss = noisy(target, 0.05)
    honest, turned = [0.5 * target] * 5, [*[0.5 * target] * 4, -0.5 * target]
    *_, before, last = over_rounds(Tempered(loss), [*map(updates, [honest] * 12), updates(turned)])
    assert before.weights == pytest.approx((0.2,) * 5)
    assert last.verification.standing[-1] < 2, "by all rounds nothing is sure yet"
    assert last.weights[-1] < 1e-6


@settings(max_examples=few(60), deadline=None)
@given(losses, rounds(), st.data())
def test_a_client_s_guilt_is_its_own_doing(loss, given_updates, data):
    """Another's update, whatever it is, changes nothing of it, where somebody leads downhill: slopes at x are each
    client's own.
    """
    downhill = update(99, loss.target)
    other = data.draw(st.sampled_from([each.client_id for each in given_updates]))
    numbers = data.draw(row)
    changed = [update(each.client_id, numbers) if each.client_id == other else each for each in given_updates]
    both = [[*given_updates, downhill], [*changed, downhill]]
    assume(min(min(shares(task(), each)) for each in both) == 1)
    one, two = (Tempered(loss).weigh(task(), each).memory for each in both)
    for client in set(one) - {other}:
        assert (one[client][0], one[client][3]) == pytest.approx((two[client][0], two[client][3]))


@settings(max_examples=few(60), deadline=None)
@given(losses, rounds())
def test_where_nothing_can_be_told_the_memory_stays(loss, given_updates):
    known = {given_updates[0].client_id: (1.0, -0.5, 2.0, 0.0), 99: (0.0, 0.0, 1.0, 0.0)}
    assert Tempered(Quadratic((1.0, 1.0, 1.0)), memory=known).weigh(task(), given_updates).memory == known
    found = Tempered(loss, memory=known).weigh(task(), given_updates).memory
    assert found[99] == known[99]
    assert set(found) == {99, *(each.client_id for each in given_updates)}


def test_the_rule_says_that_it_remembers():
    assert isinstance(Tempered(Quadratic()), Remembering)


def test_where_the_step_s_length_cannot_be_told_from_noise_it_is_as_it_was():
    """The mean goes too far by half of the way; the topics disagree by little, and by much more than that."""
    target = np.array([1.0, 1.0, 1.0])
    clear, blurred = (
        Tempered(noisy(target, width, seed=3)).weigh(task(), updates([1.5 * target] * 3)) for width in (0.01, 30.0)
    )
    assert clear.stretch[0] == pytest.approx(1 / 1.5, rel=0.02)
    assert blurred.stretch == ()


# --- cost


@pytest.mark.parametrize("clients", [10, 100])
def test_the_passes_do_not_grow_with_the_clients(clients):
    """Steps end where the length has settled, at the latest after those that there are."""
    loss = noisy((1.0, 2.0, 3.0), 0.1)
    found = Tempered(loss, steps=5).weigh(task(), updates(np.random.default_rng(0).normal(size=(clients, 3))))
    assert found.verification.passes == len(loss.asked) <= 7
    loss.asked.clear()
    far = Tempered(loss, steps=2).weigh(task(), updates([(0.01, 0.02, 0.03)] * clients))
    assert loss.asked == ["by_group"] * 3 + ["losses"]
    assert far.verification.passes == 4


def test_one_client_alone_has_all_the_weight_and_a_step_of_its_length():
    found = Tempered(noisy((1.0, 0.0, 0.0), 0.01)).weigh(task(), [update(4, (0.5, 0.0, 0.0))])
    assert found.weights == (1.0,)
    assert found.stretch[0] == pytest.approx(2.0, rel=0.05)
