import math

import pytest
import torch

from fccl.adapters.tensors import settled, sha256_of, size_of
from fccl.errors import AdapterError


def test_order_and_strides_do_not_matter_names_shapes_and_bits_do():
    matrix = torch.arange(6.0).reshape(2, 3)
    one = settled({"b": matrix, "a": torch.zeros(1)}, torch.float32).tensors
    other = settled({"a": torch.zeros(1), "b": matrix.T.contiguous().T}, torch.float32).tensors
    assert list(one) == ["a", "b"]
    assert sha256_of(one) == sha256_of(other)
    changed = [
        {"b": matrix, "c": torch.zeros(1)},
        {"b": matrix.T, "a": torch.zeros(1)},
        {"b": matrix, "a": -torch.zeros(1)},
    ]
    hashes = {sha256_of(settled(tensors, torch.float32).tensors) for tensors in changed}
    assert len(hashes | {sha256_of(one)}) == 4


def test_nobody_writes_to_the_mapping():
    with pytest.raises(TypeError):
        settled({"a": torch.zeros(1)}, torch.float32).tensors["a"] = torch.ones(1)


@pytest.mark.parametrize(
    ("numbers", "size"),
    [([1.0, -3.0], 3.0), ([-0.5, 2.0], 2.0), ([], 0.0), ([-0.0], 0.0), ([math.inf, -math.inf], math.inf)],
)
def test_the_size_is_that_of_the_number_farthest_from_zero(numbers, size):
    assert size_of(torch.tensor(numbers)) == size


@pytest.mark.parametrize("beside", [math.inf, -math.inf, 1.0])
def test_the_size_of_what_is_no_number_is_not_finite(beside):
    assert math.isnan(size_of(torch.tensor([0.0, math.nan, beside])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_type_is_refused_where_the_other_is_expected(dtype):
    other = torch.float64 if dtype == torch.float32 else torch.float32
    with pytest.raises(AdapterError, match=f"a is {other} on cpu, expected {dtype} on the CPU"):
        settled({"a": torch.zeros(1, dtype=other)}, dtype)
