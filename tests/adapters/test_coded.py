"""Adapters as the change of another one: what comes back, and what hostile bytes come to."""

import pickle
import struct
import tracemalloc
from contextlib import suppress

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter, load_adapter
from fccl.adapters.coded import HEADER_BYTES, CodedAdapter, CodedReader, base_of
from fccl.errors import AdapterError
from fccl.specs.codecs import CODECS, CodecSpec
from tests.examples import few

fuzz = settings(max_examples=few(300), deadline=None, database=None, suppress_health_check=list(HealthCheck))
LOSSY = [name for name in CODECS if name != "fp32"]
SHAPES = {"m.lora_A.weight": (3, 5), "m.lora_B.weight": (4, 3), "n": (7,)}


def adapter(seed, size=1.0):
    draw = torch.Generator().manual_seed(seed)
    return Adapter({name: size * torch.randn(shape, generator=draw) for name, shape in SHAPES.items()})


BASE, UPDATE = adapter(1), adapter(2)


def reader(name):
    return CodedReader(BASE, CodecSpec(name=name, share=0.2))


@pytest.mark.parametrize("name", LOSSY)
def test_what_is_read_is_what_the_sender_has_read(name, tmp_path):
    sent = CodedAdapter.of(UPDATE, BASE, CodecSpec(name=name, share=0.2), seed=5)
    found = reader(name).read(bytearray(sent.content), "it")
    assert (found.sha256, found.form) == (sent.sha256, sent.form)
    assert 0 < found.distance(UPDATE) < BASE.distance(UPDATE)
    sent.save(tmp_path / "whole.safetensors")
    assert load_adapter(tmp_path / "whole.safetensors").sha256 == sent.sha256
    assert pickle.loads(pickle.dumps(sent)).sha256 == sent.sha256
    assert base_of(sent.content) == BASE.sha256


def test_the_header_says_what_it_is():
    content = CodedAdapter.of(UPDATE, BASE, CodecSpec(name="topk", share=0.2), seed=5).content
    said = struct.unpack("<8sHHIQQ32s", content[:HEADER_BYTES])
    assert said == (b"fccl chg", 1, 4, 3, 34, 7, bytes.fromhex(BASE.sha256))
    assert len(content) == 64 + 5 + 4 * 7 + 4  # header, a bit for each of 34 numbers, seven scales, seven half bytes


@fuzz
@given(st.sampled_from(LOSSY), st.binary(max_size=300))
def test_any_bytes_are_an_adapter_or_one_error(name, content):
    with suppress(AdapterError):
        reader(name).read(content, "it")


@fuzz
@given(st.sampled_from(LOSSY), st.data())
def test_changed_cut_and_longer_bytes_are_an_adapter_of_this_form_or_one_error(name, data):
    content = bytearray(CodedAdapter.of(UPDATE, BASE, CodecSpec(name=name, share=0.2), seed=5).content)
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.sampled_from([0, 0, 0, -1, 1]))
    content = content[:cut] if cut < 0 else content + b"\0" * cut
    if cut or place < HEADER_BYTES:
        with pytest.raises(AdapterError, match="it has"):
            reader(name).read(content, "it")
    else:
        with suppress(AdapterError):
            assert reader(name).read(content, "it").form == BASE.form


@pytest.mark.parametrize(
    ("start", "field", "said"),
    [
        (0, b"FCCL", "kind of file"),
        (8, struct.pack("<H", 2), "version"),
        (10, struct.pack("<H", 1), "codec"),
        (12, struct.pack("<I", 2**32 - 1), "rank"),
        (16, struct.pack("<Q", 2**60), "number of numbers "),
        (24, struct.pack("<Q", 2**60), "number of numbers sent"),
        (32, b"\0" * 32, "base"),
    ],
)
def test_a_header_that_lies_is_refused_before_any_memory_is_taken(start, field, said):
    content = bytearray(CodedAdapter.of(UPDATE, BASE, CodecSpec(name="int8"), seed=5).content)
    content[start : start + len(field)] = field
    known = reader("int8")
    assert known.length == len(content)
    tracemalloc.start()
    try:
        with pytest.raises(AdapterError, match=f"has another {said}"):
            known.read(content, "it")
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_change_of_another_form_is_refused():
    with pytest.raises(AdapterError, match="different tensors"):
        CodedAdapter.of(Adapter({"n": torch.zeros(7)}), BASE, CodecSpec(name="int8"), seed=5)


def test_numbers_so_large_that_their_difference_is_infinite_are_refused():
    far = Adapter({"w": torch.tensor([3e38])}), Adapter({"w": torch.tensor([-3e38])})
    with pytest.raises(AdapterError, match="not finite"):
        CodedAdapter.of(*far, CodecSpec(name="int8"), seed=5)
