"""A global adapter in few bytes: made again to the bit, or refused without taking memory for a claim."""

import json
import tracemalloc
from contextlib import suppress

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.coded import CodedAdapter
from fccl.adapters.ranks import initial
from fccl.adapters.short import drawn, read_short
from fccl.errors import AdapterError
from fccl.specs.codecs import CodecSpec
from tests.examples import few

fuzz = settings(max_examples=few(300), deadline=None, database=None, suppress_health_check=list(HealthCheck))
FORM = Form({"m.lora_A.weight": (8, 640), "m.lora_B.weight": (96, 8)})
TOPK = CodecSpec(name="topk")


def read(content, held=(), length=None):
    whole = len(initial(FORM, 7).to_bytes()) if length is None else length
    return read_short(bytearray(content), held, TOPK, whole, "it")


@settings(max_examples=few(50))
@given(st.integers(0, 2**63))
def test_a_fresh_adapter_is_its_seed_names_and_shapes(seed):
    fresh = initial(FORM, seed)
    content = drawn(fresh, seed)
    assert read(content).sha256 == fresh.sha256
    assert len(content) < len(fresh.to_bytes()) / 50


def test_any_other_adapter_is_not():
    fresh = initial(FORM, 7)
    moved = Adapter({name: tensor + 1 for name, tensor in fresh.tensors.items()})
    assert (drawn(fresh, 8), drawn(moved, 7), drawn(fresh, 2**64)) == (None, None, None)


def test_a_change_is_read_by_who_has_its_base():
    base, other = initial(FORM, 7), initial(FORM, 9)
    sent = CodedAdapter.of(initial(FORM, 8), base, TOPK, seed=5)
    assert read(sent.content, [other, base]).sha256 == sent.sha256
    with pytest.raises(AdapterError, match="not here"):
        read(sent.content, [other])


def claims(shape, name="m.lora_A.weight"):
    """The bytes of a fresh adapter of one tensor of this shape, and the length that its file would have."""
    size = 4 * shape[0] * shape[1] if len(shape) == 2 else 4 * shape[0]
    text = json.dumps({name: {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    text += b" " * (-len(text) % 8)
    return b"fccl new" + bytes(8) + len(text).to_bytes(8, "little") + text, 8 + len(text) + size


@pytest.mark.parametrize(("shape", "said"), [([2**18, 2**18], "speaks of"), ([4], "no matrix"), ([4, 0], "no matrix")])
def test_claims_take_no_memory(shape, said):
    content, length = claims(shape)
    tracemalloc.start()
    try:
        with pytest.raises(AdapterError, match=said):
            read(content, length=length if said == "no matrix" else 1000)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@fuzz
@given(st.sampled_from([b"", b"fccl new", b"fccl chg"]), st.binary(max_size=200))
def test_any_bytes_are_an_adapter_or_one_error(start, content):
    with suppress(AdapterError):
        read(start + content, [initial(FORM, 7)], length=500)


@fuzz
@given(st.data())
def test_changed_bytes_of_a_fresh_adapter_are_an_adapter_or_one_error(data):
    content = bytearray(drawn(initial(FORM, 7), 7))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with suppress(AdapterError):
        assert torch.isfinite(read(content).vector).all()
