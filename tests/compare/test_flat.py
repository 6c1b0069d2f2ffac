import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.compare.flat import MOST_ROUNDS, PATIENCE, is_flat

LOSSES = st.lists(st.floats(0, 10), max_size=12)


@given(st.floats(0.001, 1), st.integers(1, 20))
def test_a_loss_that_falls_by_more_than_a_per_cent_of_the_perplexity_in_three_rounds_is_not_flat(step, count):
    losses = [30 - step * number for number in range(count)]
    if abs(PATIENCE * step - math.log(1.01)) > 1e-6:
        assert is_flat(losses) == (count > PATIENCE and PATIENCE * step < math.log(1.01))


@given(LOSSES, st.floats(0, 5))
def test_a_loss_that_has_not_moved_for_three_rounds_is_flat(losses, level):
    assert is_flat([*losses, min([*losses, level]), *[level] * PATIENCE])


@given(LOSSES)
def test_too_few_rounds_are_never_flat(losses):
    assert not is_flat(losses[:PATIENCE])


@given(LOSSES)
def test_a_new_best_in_the_last_rounds_is_no_end(losses):
    assert not is_flat([*losses, min([9.0, *losses]) - 1.0])


def test_there_is_room_for_more_than_one_look():
    assert MOST_ROUNDS > 2 * PATIENCE


@pytest.mark.parametrize(("losses", "flat"), [([2.0, 1.0, 1.0, 1.0], False), ([2.0, 1.0, 1.0, 1.0, 1.0], True)])
def test_the_best_before_is_what_the_last_rounds_are_held_against(losses, flat):
    assert is_flat(losses) == flat
