"""Carried updates: the same change, made from another adapter."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.errors import AdapterError
from fccl.federation.carried import Carried, carried
from fccl.messages import FitTask
from fccl.testing import lora_toy
from fccl.testing.toy import MODEL, TRAIN, ToyLearner, adapter, shard
from tests.examples import few

NUMBERS = st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3)


@given(NUMBERS, NUMBERS, NUMBERS)
@settings(max_examples=few(100))
def test_a_carried_update_is_the_change_from_the_other_start(update, start, to):
    found = Carried(adapter(*update), adapter(*start), adapter(*to)).load().tensors["w"].tolist()
    expected = [to[place] + (update[place] - start[place]) for place in range(3)]
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-5)


def an_update(start):
    task = FitTask("run", 0, "sft", start, None, MODEL, TRAIN, seed=7)
    return ToyLearner().fit(task, shard(1), lambda status: None)


def test_from_an_adapter_of_the_same_bytes_nothing_is_carried():
    update = an_update(adapter(1.0, 2.0, 3.0))
    assert carried([update], adapter(1.0, 2.0, 3.0), adapter(1.0, 2.0, 3.0)) == [update]


def test_a_carried_update_keeps_all_that_its_client_said(tmp_path):
    update = an_update(adapter(1.0, 2.0, 3.0))
    (moved,) = carried([update], adapter(1.0, 2.0, 3.0), adapter(0.0, 0.0, 0.0))
    assert (moved.client_id, moved.contribution, moved.report) == (1, update.contribution, update.report)
    assert moved.adapter.form == update.adapter.form
    assert moved.change_norm is None, "it is measured where it is now"
    moved.adapter.save(tmp_path / "moved.safetensors")
    assert (tmp_path / "moved.safetensors").read_bytes() == moved.adapter.load().to_bytes()
    assert moved.adapter.sha256 == moved.adapter.load().sha256


def test_an_update_of_another_form_is_refused():
    with pytest.raises(AdapterError):
        Carried(adapter(1.0, 2.0), adapter(1.0, 2.0, 3.0), adapter(0.0, 0.0, 0.0)).load()


def test_the_leading_directions_of_a_wider_start_carry_an_update_of_lower_rank():
    whole = lora_toy.START.adapter
    task = FitTask("run", 0, "sft", whole, None, lora_toy.MODEL, TRAIN.model_copy(update={"lower_ranks": True}), seed=7)
    update = lora_toy.LoraLearner((1,)).fit(task, shard(0), lambda status: None)
    assert Carried(update.adapter, whole, whole).load().distance(update.adapter.load()) < 1e-6
