"""Clipping example by example against its formula, for the worst gradients too."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fccl.model.clipping import clipped

numbers = st.floats(-1e3, 1e3, width=32)
batches = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(numbers, min_size=width, max_size=width), min_size=1, max_size=6)
)


@given(batches, st.floats(1e-3, 1e3))
def test_each_gradient_counts_with_its_direction_and_at_most_the_clip(rows, clip):
    expected = [0.0] * len(rows[0])
    for row in rows:
        norm = math.sqrt(math.fsum(number * number for number in row))
        share = min(1.0, clip / norm) if norm else 1.0
        expected = [total + share * number for total, number in zip(expected, row, strict=True)]
    found = clipped(torch.tensor(rows), clip)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9 * clip)


@given(batches, st.integers(0, 5), st.floats(1e-3, 1e3))
def test_one_example_moves_the_sum_by_no_more_than_the_clip(rows, place, clip):
    rest = [row for number, row in enumerate(rows) if number != place % len(rows)]
    without = clipped(torch.tensor(rest), clip) if rest else 0.0
    moved = clipped(torch.tensor(rows), clip) - without
    assert float(moved.norm()) <= clip * (1 + 1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_counts_as_zero(bad):
    rows = torch.tensor([[1.0, 0.0], [bad, 1.0], [0.0, 0.0]])
    assert clipped(rows, 0.5).tolist() == [0.5, 0.0]


def test_gradients_too_long_for_the_square_of_a_float32_are_clipped_all_the_same():
    assert float(clipped(torch.full((1, 4), 1e30), 2.0).norm()) == pytest.approx(2.0)
