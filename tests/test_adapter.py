import io
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fccl.adapter import Adapter, adapter_from_bytes, load_adapter
from fccl.errors import AdapterError

floats = st.floats(min_value=-1e6, max_value=1e6, width=32)
shapes = arrays.array_shapes(max_dims=2, max_side=4)
tensors = arrays.arrays("float32", shapes, elements=floats).map(torch.from_numpy)
mappings = st.dictionaries(st.text(min_size=1, max_size=5), tensors, min_size=1, max_size=4)


@given(mappings)
def test_bytes_and_back_is_the_same_adapter(mapping):
    adapter = Adapter(mapping)
    again = adapter_from_bytes(adapter.to_bytes())
    assert again.sha256 == adapter.sha256
    assert list(again.tensors) == sorted(mapping)
    assert adapter.to_bytes() == again.to_bytes()


@given(mappings)
def test_order_of_names_does_not_matter(mapping):
    assert Adapter(dict(reversed(mapping.items()))).sha256 == Adapter(mapping).sha256


def test_one_flipped_bit_is_another_hash():
    assert Adapter({"a": torch.tensor([0.0])}).sha256 != Adapter({"a": torch.tensor([-0.0])}).sha256


def test_shape_is_part_of_the_hash():
    assert Adapter({"a": torch.zeros(2, 1)}).sha256 != Adapter({"a": torch.zeros(1, 2)}).sha256


@pytest.mark.parametrize(
    ("mapping", "what"),
    [
        ({}, "at least one"),
        ({"a": torch.tensor([math.nan])}, "not finite"),
        ({"a": torch.tensor([math.inf])}, "not finite"),
        ({"a": torch.zeros(2, dtype=torch.float64)}, "float64"),
        ({"a": torch.zeros(2).to_sparse()}, "not a dense tensor"),
        ({"a": [1.0]}, "not a dense tensor"),
    ],
)
def test_is_built_valid_or_not_built(mapping, what):
    with pytest.raises(AdapterError, match=what):
        Adapter(mapping)


def test_a_difference_of_form_is_named():
    one = Adapter({"a": torch.zeros(2), "b": torch.zeros(3)})
    with pytest.raises(AdapterError, match="missing: b; unexpected: c"):
        one.require_same_form(Adapter({"a": torch.zeros(2), "c": torch.zeros(3)}))
    with pytest.raises(AdapterError, match=r"b has shape \(4,\), expected \(3,\)"):
        one.require_same_form(Adapter({"a": torch.zeros(2), "b": torch.zeros(4)}))


def test_distance_is_the_euclidean_norm():
    one, two = (
        Adapter({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}),
        Adapter({"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([[0.0]])}),
    )
    assert one.distance(two) == pytest.approx(math.sqrt(4 + 9))


class Exploit:
    def __reduce__(self):
        return (open, ("/tmp/fccl-test-exploit", "w"))


def saved(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"not a file", saved([1, 2]), saved({"a": 1.0}), saved({1: torch.zeros(1)}), saved(Exploit()), saved({"a": torch.zeros(3)})[:-40]],
    ids=["empty", "truncated zip", "text", "list", "number", "unnamed", "pickle that opens a file", "cut"],
)
def test_anything_else_is_refused(content, tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(AdapterError):
        load_adapter(path)
