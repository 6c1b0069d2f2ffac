"""What rounds say of a client, over rounds: a mean that fades, and who is out by it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.contribution.standing import FADES, MOST, SURE, Guilt, faded
from tests.examples import few

histories = st.lists(st.floats(-MOST, MOST), min_size=1, max_size=30)


def after(rounds):
    """The guilt of one client after these t."""
    found = Guilt.unknown(1)
    for t in rounds:
        found = found.after(np.array([t]))
    return found


@given(st.lists(st.floats(0, MOST), min_size=1, max_size=30))
def test_it_is_the_mean_of_the_rounds_in_which_later_ones_count_more(rounds):
    weights = FADES ** np.arange(len(rounds) - 1, -1, -1)
    assert after(rounds).mean[0] == pytest.approx(float(np.average(rounds, weights=weights)))


@given(histories)
def test_it_lies_between_nothing_and_what_a_round_may_say(rounds):
    assert 0 <= after(rounds).mean[0] <= MOST + 1e-12


@settings(max_examples=few(10), deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.integers(2, 30))
def test_however_much_rounds_repeat_each_other_noise_throws_nobody_out_more_often_than_one_round_does(
    seed, shared, rounds
):
    """Student's t of no effect, standard normal, of which a share is the same in every round: 2 is passed by 2.3 %."""
    draw = np.random.default_rng(seed)
    always = draw.normal(size=4000)
    found = Guilt.unknown(4000)
    for _ in range(rounds):
        found = found.after(np.sqrt(shared) * always + np.sqrt(1 - shared) * draw.normal(size=4000))
        now = found.totals >= SURE * found.rounds
    assert float(now.mean()) <= 0.036


@given(st.floats(-MOST, SURE - 0.01), st.integers(1, 200))
def test_a_client_that_is_always_the_same_is_never_more_than_that(t, rounds):
    found = after([t] * rounds)
    assert found.mean[0] == pytest.approx(max(t, 0.0), abs=1e-9)
    assert not found.out[0]


@given(histories)
def test_who_is_out_stays_out_until_nothing_of_its_guilt_is_left(rounds):
    found = Guilt.unknown(1)
    for t in rounds:
        before, found = found, found.after(np.array([t]))
        if before.out[0] and not found.out[0]:
            assert found.totals[0] == 0
        if found.out[0] and not before.out[0]:
            assert found.mean[0] >= SURE


@given(histories)
def test_a_round_that_is_sure_is_enough_where_nothing_spoke_for_the_client(rounds):
    assert after([-MOST] * 30 + [MOST]).mean[0] < SURE
    assert after([MOST]).out[0]
    assert after([*rounds, *[MOST] * 10]).out[0]


@given(histories, st.floats(-1e6, 1e6))
def test_one_round_says_no_more_than_it_may(rounds, t):
    assert after([*rounds, t]).totals == after([*rounds, max(-MOST, min(MOST, t))]).totals
    assert faded(np.zeros(1), np.array([t]))[0] == max(-MOST, min(MOST, t))


@given(st.lists(st.tuples(*[st.floats(-9, 9)] * 3), min_size=1, max_size=9))
def test_what_is_said_of_others_changes_nothing_of_a_client(rows):
    found = Guilt.unknown(3)
    for row in rows:
        found = found.after(np.array(row))
    alone = [after([row[place] for row in rows]) for place in range(3)]
    assert found.mean.tolist() == [one.mean[0] for one in alone]
    assert found.out.tolist() == [bool(one.out[0]) for one in alone]


def test_nothing_is_known_of_a_stranger():
    assert Guilt.unknown(2).mean.tolist() == [0.0, 0.0]
    assert not Guilt.unknown(2).out.any()
