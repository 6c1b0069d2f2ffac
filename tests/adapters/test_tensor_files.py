"""Files of tensors.

For good ones the safetensors library is the reference; hostile ones take nothing and run nothing.
"""

import io
import json
import pickle
import struct
import tracemalloc
from contextlib import suppress
from math import prod

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fccl.adapters.tensor_files import MAX_HEADER_BYTES, header_of, numbers_at, read_tensors, to_bytes
from fccl.adapters.torch_files import torch_bytes
from fccl.errors import AdapterError
from tests.adapters.test_adapter import mappings
from tests.examples import few

fuzz = settings(max_examples=few(200), deadline=None, database=None, suppress_health_check=list(HealthCheck))
GOOD = {"a": torch.arange(6.0).view(2, 3), "b": torch.arange(4.0)}
ENTRIES = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "F32", "shape": [4], "data_offsets": [24, 40]},
}
NUMBERS = to_bytes(GOOD)[-40:]


def file_of(entries, numbers=NUMBERS):
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return bytearray(len(text).to_bytes(8, "little") + text + numbers)


def changed(name, **fields):
    return file_of(ENTRIES | {name: ENTRIES[name] | fields})


# --- the library is the reference


@given(mappings)
def test_the_bytes_are_those_of_the_safetensors_library(mapping):
    assert to_bytes(mapping) == safetensors.torch.save(mapping)


@given(mappings, st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2))
def test_what_the_library_writes_is_read_whatever_it_says_beside(mapping, metadata):
    found = read_tensors(bytearray(safetensors.torch.save(mapping, metadata)), "it")
    assert found.keys() == mapping.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in mapping.items())


@given(mappings)
def test_wider_numbers_too(mapping):
    wide = {name: tensor.double() for name, tensor in mapping.items()}
    content = to_bytes(wide, torch.float64)
    assert content == safetensors.torch.save(wide)
    assert all(
        torch.equal(tensor, wide[name])
        for name, tensor in read_tensors(bytearray(content), "it", torch.float64).items()
    )
    with pytest.raises(AdapterError, match="'F64', expected 'F32'"):
        read_tensors(bytearray(content), "it")


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (1, 1, 1, 1, 1, 1, 1, 1)])
def test_shapes_at_the_edge(shape):
    content = bytearray(to_bytes({"a": torch.ones(shape), "b": torch.ones(2)}))
    assert content == safetensors.torch.save({"a": torch.ones(shape), "b": torch.ones(2)})
    assert read_tensors(content, "it")["a"].shape == shape


@given(
    st.lists(st.sampled_from([0, 1, 3, 2**20, 2**31, 2**33, 2**40]), min_size=1, max_size=8).filter(
        lambda shape: 0 in shape
    )
)
@example([2**40, 2**40, 0])
@example([0, 2**20, 2**21])
@example([2**40, 0])
@fuzz
def test_a_tensor_without_numbers_is_one_or_a_refusal_however_large_its_other_sizes_are(shape):
    content = file_of({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}, b"")
    if prod(filter(None, shape)) > 2**40:
        with pytest.raises(AdapterError, match="shape that no tensor has"):
            read_tensors(content, "it")
    else:
        assert tuple(read_tensors(content, "it")["a"].shape) == tuple(shape)


def test_a_view_is_written_as_its_own_numbers():
    wide = torch.arange(12.0).view(4, 3)
    assert to_bytes({"a": wide.T[1:]}) == to_bytes({"a": wide.T[1:].contiguous()})


def test_the_numbers_share_the_files_memory():
    content = bytearray(to_bytes(GOOD))
    found = read_tensors(content, "it")["b"]
    content[-4:] = struct.pack("<f", 9.0)
    assert found[3] == 9.0
    assert numbers_at(content, len(content) - 16, (4,))[3] == 9.0


# --- hostile files


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bytearray(), "ends before its header does"),
        (bytearray(b"\x08\0\0\0\0\0\0"), "ends before its header does"),
        (bytearray((2**63).to_bytes(8, "little")), "ends before its header does"),
        (bytearray(b"\xff" * 40), "ends before its header does"),
        (
            bytearray(MAX_HEADER_BYTES.__add__(8).to_bytes(8, "little")) + bytearray(MAX_HEADER_BYTES + 8),
            "at most 16,777,216 are possible",
        ),
        (bytearray((2).to_bytes(8, "little") + b"{}"), "multiple of 8 bytes"),
        (file_of(b"\x80\x05K\x01."), "header is not UTF-8"),
        (file_of(b"{'a': 1}"), "header is not JSON"),
        (file_of(b"[" * 100_000), "header is nested too deeply"),
        (file_of(b'{"a":' + b"9" * 5000 + b"}"), "header is not JSON"),
        (file_of([]), "header is not a JSON object"),
        (
            file_of(
                b'{"a":{"dtype":"F32","shape":[10],"data_offsets":[0,40]},"a":{"dtype":"F32","shape":[10],"data_offsets":[0,40]}}'
            ),
            "'a' twice",
        ),
        (file_of(b'{"a":{"dtype":"F32","shape":[1],"shape":[10],"data_offsets":[0,40]}}'), "'shape' twice"),
        (file_of(ENTRIES | {"__metadata__": {"a": 1}}), "not text by name"),
        (file_of(ENTRIES | {"__metadata__": []}), "not text by name"),
        (file_of({"a": ENTRIES["a"]}), "has 40 bytes of numbers, its header speaks of 24"),
        (file_of({}), "has 40 bytes of numbers, its header speaks of 0"),
        (file_of(ENTRIES, NUMBERS + b"\0"), "has 41 bytes of numbers"),
        (file_of(ENTRIES, NUMBERS[:-1]), "has 39 bytes of numbers"),
        (changed("a", dtype="F16"), "a as 'F16', expected 'F32'"),
        (changed("a", dtype=None), "a as None, expected"),
        (changed("a", more=1), "or says more"),
        (file_of(ENTRIES | {"a": [1]}), "does not say type, shape and place of a"),
        (changed("a", shape=[2**62, 2**62]), "shape that no tensor has"),
        (changed("a", shape=[10**12, 10**12]), r"shape \(1000000000000, 1000000000000\) in 24 bytes"),
        (changed("a", shape=[1] * 9), "shape that no tensor has"),
        (changed("a", shape=[-2, -3]), "shape that no tensor has"),
        (
            file_of({"a": {"dtype": "F32", "shape": [0, 2**40, 2**40], "data_offsets": [0, 0]}}, b""),
            "shape that no tensor has",
        ),
        (changed("a", shape=[True, 6]), "shape that no tensor has"),
        (changed("a", shape=[2.0, 3]), "shape that no tensor has"),
        (changed("a", shape="23"), "shape that no tensor has"),
        (changed("a", data_offsets=[0, 24, 24]), "no place in the file"),
        (changed("a", data_offsets=[24, 0]), "in -24 bytes"),
        (changed("a", data_offsets=[-24, 0]), "no place in the file"),
        (changed("a", data_offsets=[2**63, 2**63 + 24]), "no place in the file"),
        (changed("a", data_offsets=[0.0, 24]), "no place in the file"),
        (changed("b", data_offsets=[8, 24]), "overlap at byte 8"),
        (changed("b", data_offsets=[28, 44]), "nobody names at byte 24"),
        (changed("b", data_offsets=[2**39, 2**39 + 16]), "nobody names at byte 24"),
        (file_of(ENTRIES | {"c": ENTRIES["b"]}), "overlap at byte 24"),
        (bytearray(torch_bytes(GOOD)), "ends before its header does"),
        (bytearray(pickle.dumps(GOOD)), "ends before its header does"),
    ],
)
def test_what_is_no_file_of_tensors_is_one_line(content, reason):
    with pytest.raises(AdapterError, match=rf"^it .*{reason}") as found:
        read_tensors(content, "it")
    assert "\n" not in str(found.value)


def test_a_name_made_for_a_terminal_is_shown_harmless():
    with pytest.raises(AdapterError) as found:
        read_tensors(file_of({"\x1b[2J\n": {**ENTRIES["a"], "dtype": "\x07"}}), "it")
    assert str(found.value).isprintable()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([24, 40, "F32", [2, 3], [0, 24], 2**63, 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
fields = st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "more"]), json_values, max_size=4)


@fuzz
@given(st.dictionaries(st.sampled_from(["a", "b", "c", "__metadata__"]), fields | json_values, max_size=3))
@example({"a": {"shape": [3, 2]}})
def test_a_header_that_says_something_else_never_makes_other_numbers(changes):
    """Refused, or the bytes of the file in another shape."""
    entries = {
        name: ENTRIES.get(name, {}) | value if isinstance(value, dict) else value for name, value in changes.items()
    }
    with suppress(AdapterError):
        found = read_tensors(file_of(ENTRIES | entries), "it")
        assert b"".join(found[name].numpy().tobytes() for name in sorted(found)) == NUMBERS


@fuzz
@given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
def test_arbitrary_bytes_are_refused(content, length):
    for made in (content, length.to_bytes(8, "little") + content, len(content).to_bytes(8, "little") + content):
        with pytest.raises(AdapterError):
            read_tensors(bytearray(made), "it")


class Bomb:
    """Of a hundred bytes, or a thousand; unpickled, all the memory that there is."""

    def __init__(self, *called):
        self.called = called

    def __reduce__(self):
        return self.called


BOMBS = [
    Bomb(bytearray, (6 * 2**30,)),
    Bomb(bytes, (6 * 2**30,)),
    Bomb(list, (range(10**9),)),
    Bomb(torch.zeros, (2**31,)),
    Bomb(bytearray, (Bomb(bytearray, (6 * 2**30,)),)),
]


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("how", ["torch", "pickle", "a header"])
def test_a_bomb_takes_no_memory(bomb, how):
    pickled = pickle.dumps(bomb)
    content = {"torch": bytearray(torch_bytes_of(bomb)), "pickle": bytearray(pickled), "a header": file_of(pickled)}[
        how
    ]
    tracemalloc.start()
    try:
        with pytest.raises(AdapterError):
            read_tensors(content, "it")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def torch_bytes_of(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("count", [20_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_a_long_header_takes_a_few_times_its_length(count):
    """Of the cheapest entries that there are; all of them are refused, and the same name twice is found quickly."""
    names = b",".join(b'"%d":0' % number for number in range(count))
    for header in (b"{" + names + b"}", b"{" + names + b',"%d":0}' % (count - 1)):
        content = file_of(header)
        tracemalloc.start()
        try:
            with pytest.raises(AdapterError):
                read_tensors(content, "it")
            assert tracemalloc.get_traced_memory()[1] < 50 * len(content)
        finally:
            tracemalloc.stop()


def test_the_header_is_as_long_as_it_says():
    assert header_of({name: tuple(tensor.shape) for name, tensor in GOOD.items()}) + NUMBERS == to_bytes(GOOD)
