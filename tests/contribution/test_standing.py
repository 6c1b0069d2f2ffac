"""What rounds say of a client, over rounds: a sum that fades, measured by its own noise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.contribution.standing import CREDIT, FADES, MOST, after, standing
from tests.examples import few

ratios = st.floats(-1e6, 1e6)
histories = st.lists(st.floats(-MOST, MOST), min_size=1, max_size=30)


def z_after(rounds, client=3):
    memory = {}
    for t in rounds:
        memory = after(memory, [client], np.array([t]))
    return float(standing(memory, [client])[0])


@given(st.lists(st.floats(-0.4, MOST), min_size=1, max_size=30))
def test_it_is_the_faded_sum_over_the_noise_of_the_faded_sum(rounds):
    """Of rounds that earn no more credit than there is."""
    weights = FADES ** np.arange(len(rounds) - 1, -1, -1)
    assert z_after(rounds) == pytest.approx(float(weights @ rounds) / math.sqrt(float(weights @ weights)))


@given(histories)
def test_a_good_name_is_bounded_and_soon_lost(rounds):
    """Whatever a client did before, two rounds of the most that one may say are enough."""
    assert z_after(rounds) >= -CREDIT - 1e-12
    assert z_after([*rounds, MOST, MOST]) > 1


@given(st.floats(-MOST, MOST))
def test_a_first_round_says_what_it_says(t):
    assert z_after([t]) == max(t, -CREDIT)


@settings(max_examples=few(10), deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_of_nothing_but_noise_it_speaks_against_nobody_more_than_one_round_does(seed, rounds):
    """By the normal distribution: above 1 in 16 % of clients, above 2 in 2 %, and a little more, as credit is cut."""
    drawn = np.random.default_rng(seed).normal(size=(rounds, 4000))
    clients, memory = list(range(4000)), {}
    for row in drawn:
        memory = after(memory, clients, row)
    found = standing(memory, clients)
    assert float((found > 1).mean()) == pytest.approx(0.16, abs=0.03)
    assert float((found > 2).mean()) == pytest.approx(0.023, abs=0.015)


@given(st.floats(-CREDIT / 5, MOST))
def test_a_client_that_is_always_the_same_comes_to_a_bounded_multiple(t):
    assert z_after([t] * 300) == pytest.approx(t * math.sqrt((1 + FADES) / (1 - FADES)))


@given(histories, ratios)
def test_one_round_says_no_more_than_it_may(rounds, t):
    bounded = max(-MOST, min(MOST, t))
    assert z_after([*rounds, t]) == z_after([*rounds, bounded])


@given(histories, st.lists(ratios, max_size=5))
def test_what_others_do_changes_nothing_of_a_client_and_nor_does_a_round_without_it(rounds, others):
    memory = {}
    for t in rounds:
        memory = after(memory, [3, 5], np.array([t, -t]))
    later = memory
    for t in others:
        later = after(later, [5], np.array([t]))
    assert later[3] == memory[3]


def test_nothing_is_known_of_a_stranger():
    assert standing({}, [0, 7]).tolist() == [0.0, 0.0]
