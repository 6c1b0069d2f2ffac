"""Clipping, noise and the grid, against numpy; another question or another sum has another tag."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter
from fccl.privacy.mechanism import clipped_change, moved, noised, tag_of, trained_numbers
from fccl.privacy.secrets import Secret
from fccl.testing.toy import TRAIN, adapter
from tests.examples import few

NUMBERS = st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3)
SECRET = Secret(bytes(32))
ALL = torch.ones(3, dtype=torch.float64)


@given(NUMBERS, NUMBERS, st.floats(1e-3, 100))
@settings(max_examples=few(100))
def test_a_change_is_as_long_as_the_clip_at_most_and_keeps_its_direction(before, after, clip):
    change, is_short = clipped_change(adapter(*before), adapter(*after), clip)
    wanted = np.array(after) - np.array(before)
    length = math.sqrt(float(wanted @ wanted))
    assert is_short == (length <= clip)
    assert math.sqrt(float(change @ change)) <= clip * (1 + 1e-12)
    assert change.numpy() == pytest.approx(wanted * min(1.0, clip / length if length else 1.0), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("deviation", [1e-3, 0.7, 40.0])
def test_noise_has_the_deviation_that_it_should_and_lies_on_the_grid(deviation):
    total, mask = torch.full((20_000,), 0.3, dtype=torch.float64), torch.ones(20_000, dtype=torch.float64)
    found = noised(total, deviation, mask, SECRET.draws("noise", str(deviation))).numpy()
    assert np.std(found) == pytest.approx(deviation, rel=0.03)
    assert np.mean(found) == pytest.approx(0.3, abs=4 * deviation / math.sqrt(20_000))
    step = 2.0 ** (math.floor(math.log2(deviation)) - 20)
    assert (found / step == np.round(found / step)).all()


def test_the_noise_of_two_purposes_has_nothing_in_common():
    one, other = (noised(0 * ALL, 1.0, ALL, SECRET.draws(name)) for name in ("a", "b"))
    assert not bool((one == other).any())


def test_a_factor_that_is_frozen_gets_no_noise():
    form = Adapter({"x.lora_A.weight": torch.zeros(2, 3), "x.lora_B.weight": torch.zeros(4, 2)}).form
    frozen = trained_numbers(form, TRAIN.model_copy(update={"freeze_a": True}))
    assert frozen.tolist() == [0.0] * 6 + [1.0] * 8
    assert trained_numbers(form, TRAIN).tolist() == [1.0] * 14
    change = noised(torch.zeros(14, dtype=torch.float64), 1.0, frozen, SECRET.draws("frozen"))
    assert [bool(number) for number in change] == [False] * 6 + [True] * 8


def test_the_adapter_moves_by_the_change():
    start = adapter(1.0, 2.0, 3.0)
    assert moved(start, torch.tensor([0.5, 0.0, -1.0], dtype=torch.float64)).tensors["w"].tolist() == [1.5, 2.0, 2.0]


def test_a_tag_is_of_the_question_and_of_the_last_bit_of_the_sum():
    nudged = ALL.clone()
    nudged[2] = math.nextafter(1.0, 2.0)
    tags = {tag_of(("a", "b"), ALL), tag_of(("ab", ""), ALL), tag_of(("a", "b"), nudged)}
    assert len(tags) == 3
    assert tag_of(("a", "b"), ALL.clone()) in tags
