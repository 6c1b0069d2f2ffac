import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.evaluation.preference import TIE_NATS, accuracy, choices, preference

margins = st.lists(
    st.sampled_from([0.0, TIE_NATS / 2, -TIE_NATS / 2, 0.5, -0.5, 30.0, -2.0]), min_size=1, max_size=30
).map(np.array)


def test_a_tie_is_neither_right_nor_wrong(boot):
    found = preference(np.array([2.0, 0.0, -1.0, 3.0, 0.00001]), boot)
    assert (found.right, found.wrong, found.ties) == (2, 1, 2)
    assert found.accuracy is not None
    assert found.accuracy.value == pytest.approx(2 / 3)
    assert found.accuracy.n == 3


def test_all_ties_have_no_accuracy(boot):
    found = preference(np.zeros(4), boot)
    assert (found.accuracy, found.ties) == (None, 4)
    assert accuracy(np.zeros(4)) is None


@given(margins)
def test_every_pair_is_counted_once_and_exchanging_the_responses_exchanges_right_and_wrong(margins):
    right, wrong = (choices(margins) == 1).sum(), (choices(margins) == 0).sum()
    assert right + wrong + np.isnan(choices(margins)).sum() == len(margins)
    assert ((choices(-margins) == 1).sum(), (choices(-margins) == 0).sum()) == (wrong, right)


@given(margins)
def test_accuracies_of_both_directions_add_up_to_one(margins):
    mine, other = accuracy(margins), accuracy(-margins)
    assert (mine is None and other is None) or mine + other == pytest.approx(1)
