"""Products of a frozen weight at each precision: bounds that no input may break, against float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.model.frozen_weight import FROZEN, Int8, Packed8, rows_to_whole
from fccl.model.language_model import cpu_threads
from tests.examples import few

HALF = 2.0**-8  # the relative error of one rounding to bfloat16
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 70), st.integers(1, 50))
SPREADS = st.floats(0.0, 8.0)


def drawn(*shape, seed, spread=1.0):
    """Normal numbers whose rows differ in size by up to e^spread."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw) * (spread * torch.rand(shape[0], 1, generator=draw)).exp()


def frozen(precision, weight, bias):
    return FROZEN[precision](weight.bfloat16() if precision == "bf16" else weight, bias)


def int8_limit(x, matrix, digits):
    """The largest error of x M, entry by entry: M has one digit of 254 steps, x so many."""
    x, matrix = x.double(), matrix.double()
    of_x = x.abs().amax(1, keepdim=True) / 254**digits * (1 + 1e-3)  # (T, 1); float32 knows a digit's place to 1e-5
    of_matrix = matrix.abs().amax(0, keepdim=True) / 254  # (1, n)
    most = of_x * matrix.abs().sum(0) + x.abs().sum(1, keepdim=True) * of_matrix + len(matrix) * of_x * of_matrix
    return most * (1 + 1e-5) + 1e-12


@pytest.mark.int8
@settings(max_examples=few(60), deadline=None)
@given(size=SIZES, seed=st.integers(0, 999), spread=SPREADS)
def test_int8_products_are_within_the_bound_of_their_roundings_in_both_directions(size, seed, spread):
    tokens, inner, outer = size
    weight, bias = drawn(inner, outer, seed=seed, spread=spread), drawn(outer, 1, seed=seed + 1).view(-1)
    x, d_y = drawn(tokens, inner, seed=seed + 2, spread=spread), drawn(tokens, outer, seed=seed + 3, spread=spread)
    found = frozen("int8", weight, bias)
    assert ((found(x) - bias - x.double() @ weight.double()).abs() <= int8_limit(x, weight, digits=2) + 1e-5).all()
    assert ((found.back(d_y) - d_y.double() @ weight.double().T).abs() <= int8_limit(d_y, weight.T, digits=1)).all()


@settings(max_examples=few(60), deadline=None)
@given(size=SIZES, seed=st.integers(0, 999), spread=SPREADS)
def test_bfloat16_products_are_within_the_bound_of_three_roundings(size, seed, spread):
    tokens, inner, outer = size
    weight, bias = drawn(inner, outer, seed=seed, spread=spread), torch.zeros(outer)
    x, d_y = drawn(tokens, inner, seed=seed + 2), drawn(tokens, outer, seed=seed + 3)
    found = frozen("bf16", weight, bias)
    for product, left, right in ((found(x), x, weight), (found.back(d_y), d_y, weight.T)):
        left, right = left.double(), right.double()
        limit = 3.1 * HALF * (left.abs() @ right.abs()) + 1e-12
        assert product.dtype == torch.float32
        assert ((product - left @ right).abs() <= limit).all()


@settings(max_examples=few(30), deadline=None)
@given(size=SIZES, seed=st.integers(0, 999))
def test_plain_products_are_the_map(size, seed):
    tokens, inner, outer = size
    weight, bias = drawn(inner, outer, seed=seed).double(), drawn(outer, 1, seed=seed + 1).view(-1).double()
    x, d_y = drawn(tokens, inner, seed=seed + 2).double(), drawn(tokens, outer, seed=seed + 3).double()
    found = frozen("fp32", weight, bias)
    assert torch.allclose(found(x), x @ weight + bias, atol=1e-12)
    assert torch.allclose(found.back(d_y), d_y @ weight.T, atol=1e-12)


@settings(max_examples=few(30), deadline=None)
@given(size=SIZES, seed=st.integers(0, 999))
def test_a_row_of_an_int8_product_does_not_depend_on_the_others(size, seed):
    tokens, inner, outer = size
    found = frozen("int8", drawn(inner, outer, seed=seed), torch.zeros(outer))
    x = drawn(tokens, inner, seed=seed + 1, spread=5.0)
    order = torch.randperm(tokens, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(found(x)[order], found(x[order]))
    assert torch.equal(found(x)[:1], found(x[:1]))


@pytest.mark.int8
@settings(max_examples=few(30), deadline=None)
@given(size=SIZES, seed=st.integers(0, 999), largest=st.booleans())
def test_a_sum_of_whole_numbers_is_exact(size, seed, largest):
    """Also of the largest there are, 127 · 127 each: instructions for 16 bits would saturate."""
    tokens, inner, outer = size
    draw = torch.Generator().manual_seed(seed)
    matrix = torch.randint(-127, 128, (inner, outer), generator=draw).double()
    x = torch.randint(-127, 128, (tokens, inner), generator=draw).double()
    matrix, x = (matrix.sign() * 127, x.sign() * 127) if largest else (matrix, x)
    matrix[0], x[:, 0] = 127, 127  # every scale is 1
    assert torch.equal(Packed8.of(matrix.float()).product(x.float()).double(), x @ matrix)


def test_int8_products_have_the_same_bytes_with_any_number_of_threads():
    found = frozen("int8", drawn(300, 200, seed=1), drawn(200, 1, seed=2).view(-1))
    x, d_y = drawn(90, 300, seed=3), drawn(90, 200, seed=4)
    seen = set()
    for threads in (1, 2, 1):
        with cpu_threads(threads):
            seen.add((found(x).numpy().tobytes(), found.back(d_y).numpy().tobytes()))
    assert len(seen) == 1


def test_rows_are_multiples_of_a_scale_and_their_largest_entry_is_exact():
    x = drawn(50, 33, seed=5, spread=6.0)
    numbers, scales = rows_to_whole(x)
    assert torch.equal(numbers, numbers.round())
    assert (numbers.abs().amax(1) == 127).all()
    assert torch.allclose((numbers * scales).abs().amax(1), x.abs().amax(1), rtol=1e-6)
    assert ((numbers * scales - x).abs() <= scales * 0.5001).all()


def test_rows_and_columns_of_zeros_give_zeros():
    matrix, x = drawn(9, 7, seed=1), drawn(5, 9, seed=2)
    matrix[:, 3], x[2] = 0, 0
    found = Packed8.of(matrix).product(x)
    assert (found[2] == 0).all()
    assert (found[:, 3] == 0).all()
    assert (found[0, :3] != 0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_is_not_made_finite(bad):
    """Training that diverges has to be seen."""
    x = drawn(3, 9, seed=2)
    x[1, 4] = bad
    found = frozen("int8", drawn(9, 7, seed=1), torch.zeros(7))(x)
    assert not found[1].isfinite().any()
    assert found[[0, 2]].isfinite().all()


def test_a_weight_that_somebody_has_written_to_is_quantised_again():
    weight, other, x = drawn(20, 10, seed=1), drawn(20, 10, seed=2), drawn(6, 20, seed=3)
    found = Int8(weight, torch.zeros(10))
    before = found(x), found.back(x[:, :10])
    weight.copy_(other)
    new = Int8(other, torch.zeros(10))
    assert torch.equal(found(x), new(x))
    assert torch.equal(found.back(x[:, :10]), new.back(x[:, :10]))
    assert not torch.equal(found(x), before[0])
