"""Which directions of LoRA factors are whose: cut, put together again, compared."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.ranks import WithFrozen, distance, leading, of_rank, pairs, rank_of, trailing, with_frozen
from fccl.errors import AdapterError
from fccl.testing.lora_toy import factors

PLAIN = Adapter({"w": torch.ones(3)})
ranks = st.integers(1, 8)


@given(wide=ranks, rank=ranks)
@settings(deadline=None)
def test_an_update_and_what_stood_behind_it_are_the_whole(wide, rank):
    before = factors(1, wide)
    update = leading(factors(2, wide), rank)
    whole = with_frozen(update, before)
    assert whole.form == before.form == WithFrozen(update, before).form
    assert leading(whole, rank).sha256 == update.sha256
    left, right = trailing(whole, rank), trailing(before, rank)
    assert (left is None) == (right is None) == (rank >= wide)
    assert left is None or left.sha256 == right.sha256
    assert with_frozen(leading(before, rank), before).sha256 == before.sha256


@given(wide=ranks, rank=ranks)
@settings(deadline=None)
def test_a_form_of_another_rank_is_that_of_factors_of_that_rank(wide, rank):
    assert of_rank(factors(0, wide).form, rank) == factors(0, rank).form
    assert rank_of(factors(0, wide).form) == wide


def test_an_update_that_cannot_stand_before_these_directions_is_refused():
    before = factors(1, 2)
    other = {name.replace("mlp", "conv"): tensor for name, tensor in leading(before, 1).tensors.items()}
    for update in (factors(2, 3), Adapter(other), PLAIN):
        with pytest.raises(AdapterError):
            with_frozen(update, before)


@given(one=ranks, other=ranks)
@settings(deadline=None)
def test_the_distance_counts_what_only_one_has(one, other):
    left, right = factors(1, one), factors(2, other)
    short, long = sorted((left, right), key=lambda adapter: rank_of(adapter.form))
    extra = trailing(long, rank_of(short.form))
    squares = leading(long, rank_of(short.form)).distance(short) ** 2
    if extra is not None:
        squares += sum(float(tensor.double().square().sum()) for tensor in extra.tensors.values())
    assert distance(left, right) == pytest.approx(squares**0.5)
    assert distance(left, right) == distance(right, left)


def test_what_is_no_lora_is_left_alone():
    assert rank_of(PLAIN.form) == 0
    assert leading(PLAIN, 1) is PLAIN
    assert trailing(PLAIN, 1) is None
    assert with_frozen(PLAIN, PLAIN) is PLAIN
    assert of_rank(PLAIN.form, 5) == PLAIN.form
    assert distance(PLAIN, Adapter({"w": torch.zeros(3)})) == pytest.approx(3**0.5)
    with pytest.raises(AdapterError, match="more than pairs"):
        pairs(PLAIN.form)


@pytest.mark.parametrize(
    "shapes",
    [{"m.lora_A.weight": ()}, {"m.lora_A.weight": (2, 3), "m.lora_B.weight": (4,)}, {"m.lora_B.weight": (4, 2)}],
)
def test_any_form_has_a_rank(shapes):
    """A hostile file may claim any shapes: they are compared, and nothing else comes of them."""
    assert of_rank(factors(0).form, rank_of(Form(shapes))) != Form(shapes)
