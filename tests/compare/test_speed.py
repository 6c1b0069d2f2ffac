import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.compare.speed import area, spent_until
from fccl.compare.values import RoundSummary

RUNS = st.lists(st.tuples(st.floats(0, 10), st.integers(1, 1000)), min_size=2, max_size=9)


def rounds(*pairs):
    return [RoundSummary(clients=(0,), weights=None, loss=loss, tokens=tokens, bytes=7) for loss, tokens in pairs]


@given(RUNS)
def test_the_area_is_numpys_trapezoids_over_the_tokens(pairs):
    losses, spent = [loss for loss, _ in pairs], np.cumsum([tokens for _, tokens in pairs])
    assert area(rounds(*pairs)) == pytest.approx(np.trapezoid(losses, spent) / (spent[-1] - spent[0]))


@given(RUNS, st.integers(2, 50))
def test_a_unit_of_tokens_changes_nothing(pairs, factor):
    larger = [(loss, factor * tokens) for loss, tokens in pairs]
    assert area(rounds(*larger)) == pytest.approx(area(rounds(*pairs)))


def test_of_two_runs_with_the_same_end_the_faster_has_the_smaller_area():
    assert area(rounds((3.0, 10), (1.0, 10), (1.0, 10))) < area(rounds((3.0, 10), (3.0, 10), (1.0, 10)))


def test_one_round_has_its_loss_and_uncounted_tokens_have_none():
    assert area(rounds((2.0, 5))) == 2.0
    assert area([]) is None
    assert area(rounds((2.0, 0), (1.0, 0))) is None


def test_until_a_loss_is_the_first_round_that_has_it():
    run = rounds((3.0, 10), (1.5, 20), (1.0, 30))
    assert spent_until(run, 1.5) == (30, 14)
    assert spent_until(run, 3.5) == (10, 7)
    assert spent_until(run, 0.9) is None
    assert spent_until(rounds((1.0, 0)), 2.0) is None
