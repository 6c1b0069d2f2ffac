import math
import os
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fccl.adapters.adapter import Adapter, adapter_from_bytes, load_adapter
from fccl.adapters.torch_files import torch_bytes
from fccl.errors import AdapterError, StorageError
from fccl.model.language_model import cpu_threads

floats = st.floats(min_value=-1e6, max_value=1e6, width=32)
shapes = arrays.array_shapes(max_dims=2, max_side=4)
tensors = arrays.arrays("float32", shapes, elements=floats).map(torch.from_numpy)
names = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=5)
mappings = st.dictionaries(names, tensors, min_size=1, max_size=4)


@given(mappings)
def test_bytes_and_back_is_the_same_adapter(mapping):
    adapter = Adapter(mapping)
    again = adapter_from_bytes(bytearray(adapter.to_bytes()))
    assert again.sha256 == adapter.sha256
    assert list(again.tensors) == sorted(mapping)
    assert adapter.to_bytes() == again.to_bytes()


@given(mappings)
def test_order_of_names_does_not_matter(mapping):
    assert Adapter(dict(reversed(mapping.items()))).sha256 == Adapter(mapping).sha256


@given(mappings)
def test_its_vector_has_all_numbers_and_is_no_copy_where_it_was_made_of_one(mapping):
    pieces = Adapter(mapping)
    expected = torch.cat([mapping[name].reshape(-1) for name in sorted(mapping)])
    assert torch.equal(pieces.vector, expected)
    whole = Adapter.of_vector(expected, pieces.form)
    assert whole.vector is expected
    assert whole.form == pieces.form


def test_the_distance_of_many_numbers_is_the_same_however_they_lie_and_however_many_threads_there_are():
    draw = torch.Generator().manual_seed(0)
    numbers = [torch.randn(100_003, generator=draw) for _ in range(2)]
    form = Adapter({"a": numbers[0][:70_000], "b": numbers[0][70_000:]}).form
    pieces = [Adapter({"a": each[:70_000], "b": each[70_000:]}) for each in numbers]
    whole = [Adapter.of_vector(each, form) for each in numbers]
    with cpu_threads(2):
        two_threads = whole[0].distance(whole[1])
    with cpu_threads(1):
        assert {pieces[0].distance(pieces[1]), pieces[0].distance(whole[1])} == {two_threads}
    assert two_threads == pytest.approx(math.sqrt(float((numbers[0].double() - numbers[1]).square().sum())), rel=1e-12)


@given(mappings)
def test_of_one_vector_it_is_the_same_adapter_with_the_same_largest_number(mapping):
    pieces = Adapter(mapping)
    vector = torch.cat([tensor.reshape(-1) for tensor in pieces.tensors.values()])
    whole = Adapter.of_vector(vector, pieces.form)
    assert (whole.sha256, whole.form, whole.to_bytes()) == (pieces.sha256, pieces.form, pieces.to_bytes())
    assert whole.largest == pieces.largest == float(vector.abs().max()) if len(vector) else whole.largest == 0
    with pytest.raises(TypeError):
        whole.tensors["another"] = vector


def test_of_a_vector_that_is_not_finite_it_is_not_built_and_the_error_names_the_tensor():
    form = Adapter({"a": torch.zeros(2), "b": torch.zeros(1, 2)}).form
    with pytest.raises(AdapterError, match="b has values that are not finite"):
        Adapter.of_vector(torch.tensor([0.0, 0.0, math.nan, 0.0]), form)


@given(mappings, st.integers(0, 100))
def test_the_distance_is_that_of_all_numbers_in_float64(mapping, seed):
    one, draw = Adapter(mapping), torch.Generator().manual_seed(seed)
    other = Adapter({name: torch.randn(tensor.shape, generator=draw) for name, tensor in one.tensors.items()})
    numbers = [torch.cat([each.reshape(-1) for each in it.tensors.values()]).double() for it in (one, other)]
    assert one.distance(other) == pytest.approx(float(torch.linalg.vector_norm(numbers[0] - numbers[1])), rel=1e-12)
    assert one.distance(one) == 0


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
        ({"__metadata__": torch.zeros(2)}, "no name of a tensor"),
        ({"a\x1b[2J": torch.zeros(2)}, "no name of a tensor"),
        ({"\ud800": torch.zeros(2)}, "no name of a tensor"),
        ({7: torch.zeros(2)}, "no name of a tensor"),
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


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"not a file", torch_bytes({"a": torch.zeros(3)}), Adapter({"a": torch.zeros(3)}).to_bytes()[:-4]],
)
def test_anything_else_is_refused(content, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(AdapterError, match=re.escape(str(path))) as caught:
        load_adapter(path)
    assert caught.value.hint == "if the file was cut or changed, put a copy of it back"


@given(mappings)
def test_a_file_of_an_earlier_version_is_read_where_there_is_no_other(tmp_path_factory, mapping):
    adapter, folder = Adapter(mapping), tmp_path_factory.mktemp("logs")
    (folder / "global_sft.pt").write_bytes(torch_bytes(adapter.tensors))
    assert load_adapter(folder / "global_sft.safetensors").sha256 == adapter.sha256
    other = Adapter({"b": torch.ones(2)})
    other.save(folder / "global_sft.safetensors")
    assert load_adapter(folder / "global_sft.safetensors").sha256 == other.sha256


@pytest.mark.parametrize("what", ["missing", "a pipe", "a folder"])
def test_what_is_no_file_is_one_line(tmp_path, what):
    path = tmp_path / "x.safetensors"
    if what != "missing":
        os.mkfifo(path) if what == "a pipe" else path.mkdir()
    with pytest.raises(StorageError, match="cannot read"):
        load_adapter(path)


def test_for_peft_s_folder_the_hint_names_the_file_in_it(tmp_path):
    file = tmp_path / "adapter_model.safetensors"
    Adapter({"a": torch.ones(1)}).save(file)
    with pytest.raises(StorageError, match="it is a folder") as caught:
        load_adapter(tmp_path)
    assert caught.value.hint == f"name the file in it: {file}"
