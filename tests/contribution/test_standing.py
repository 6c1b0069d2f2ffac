"""What rounds say of a client, over rounds: a sum that fades, measured by its own noise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.contribution.standing import FADES, MOST, Standing
from tests.examples import few

histories = st.lists(st.floats(-MOST, MOST), min_size=1, max_size=30)
credits_ = st.sampled_from([0.5, 2.0, math.inf])


def after(rounds, credit=math.inf):
    """The standing of one client after these t."""
    found = Standing.unknown(1)
    for t in rounds:
        found = found.after(np.array([t]), credit)
    return found


def z(rounds, credit=math.inf):
    return float(after(rounds, credit).z[0])


@given(histories)
def test_it_is_the_faded_sum_over_the_noise_of_the_faded_sum(rounds):
    weights = FADES ** np.arange(len(rounds) - 1, -1, -1)
    assert z(rounds) == pytest.approx(float(weights @ rounds) / math.sqrt(float(weights @ weights)), abs=1e-9)


@given(st.floats(-MOST, MOST), credits_)
def test_a_first_round_says_what_it_says(t, credit):
    assert z([t], credit) == max(t, -credit)


@settings(max_examples=few(10), deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_of_nothing_but_noise_it_has_the_spread_of_one_round(seed, rounds):
    found = Standing.unknown(4000)
    for row in np.random.default_rng(seed).normal(size=(rounds, 4000)):
        found = found.after(row)
    assert float(found.z.std()) == pytest.approx(1, abs=0.06)


@settings(max_examples=few(10), deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_with_credit_noise_speaks_against_nobody_more_than_one_round_does(seed, rounds):
    """By the normal distribution: above 1 in 16 % of clients, above 2 in 2 %, and a little more, as credit is cut."""
    found = Standing.unknown(4000)
    for row in np.random.default_rng(seed).normal(size=(rounds, 4000)):
        found = found.after(row, credit=2.0)
    assert float((found.z > 1).mean()) == pytest.approx(0.16, abs=0.03)
    assert float((found.z > 2).mean()) == pytest.approx(0.023, abs=0.015)


@given(st.floats(-MOST, MOST))
def test_a_client_that_is_always_the_same_comes_to_a_bounded_multiple(t):
    assert z([t] * 300) == pytest.approx(t * math.sqrt((1 + FADES) / (1 - FADES)), abs=1e-9)


@given(histories)
def test_a_good_name_is_bounded_and_soon_lost(rounds):
    """Whatever a client did before, two rounds of the most that one may say are enough."""
    assert z(rounds, credit=2.0) >= -2 - 1e-12
    assert z([*rounds, MOST, MOST], credit=2.0) > 1


@given(histories, st.floats(-1e6, 1e6), credits_)
def test_one_round_says_no_more_than_it_may(rounds, t, credit):
    assert z([*rounds, t], credit) == z([*rounds, max(-MOST, min(MOST, t))], credit)


@given(st.lists(st.tuples(*[st.floats(-9, 9)] * 3), min_size=1, max_size=9), credits_)
def test_what_is_said_of_others_changes_nothing_of_a_client(rows, credit):
    found = Standing.unknown(3)
    for row in rows:
        found = found.after(np.array(row), credit)
    assert found.z.tolist() == [z([row[place] for row in rows], credit) for place in range(3)]
    assert found.rounds.tolist() == after([0.0] * len(rows)).rounds.tolist() * 3


def test_nothing_is_known_of_a_stranger():
    assert Standing.unknown(2).z.tolist() == [0.0, 0.0]
