import pytest
import torch

from fccl.adapters.tensors import settled, sha256_of
from fccl.errors import AdapterError


def test_order_and_strides_do_not_matter_names_shapes_and_bits_do():
    matrix = torch.arange(6.0).reshape(2, 3)
    one = settled({"b": matrix, "a": torch.zeros(1)}, torch.float32)
    other = settled({"a": torch.zeros(1), "b": matrix.T.contiguous().T}, torch.float32)
    assert list(one) == ["a", "b"]
    assert sha256_of(one) == sha256_of(other)
    changed = [
        {"b": matrix, "c": torch.zeros(1)},
        {"b": matrix.T, "a": torch.zeros(1)},
        {"b": matrix, "a": -torch.zeros(1)},
    ]
    hashes = {sha256_of(settled(tensors, torch.float32)) for tensors in changed}
    assert len(hashes | {sha256_of(one)}) == 4


def test_nobody_writes_to_the_mapping():
    with pytest.raises(TypeError):
        settled({"a": torch.zeros(1)}, torch.float32)["a"] = torch.ones(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_type_is_refused_where_the_other_is_expected(dtype):
    other = torch.float64 if dtype == torch.float32 else torch.float32
    with pytest.raises(AdapterError, match=f"a is {other} on cpu, expected {dtype} on the CPU"):
        settled({"a": torch.zeros(1, dtype=other)}, dtype)
