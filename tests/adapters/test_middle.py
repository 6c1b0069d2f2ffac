"""Middle matrices: what stands for the product, what is sent of it, and what is refused."""

import tracemalloc
from contextlib import suppress

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.middle import folded, has_middle, joined, middle_form, moving, with_middles, without_effect
from fccl.adapters.ranks import initial, leading, of_rank, rank_of, with_frozen
from fccl.adapters.short import drawn, middle_alone, read_short
from fccl.aggregation.mean import weighted_mean
from fccl.errors import AdapterError
from fccl.specs.codecs import CodecSpec
from fccl.testing.lora_toy import RANK, factors
from tests.examples import few

FORM = with_middles(factors(0).form)
MODULES = ("m.attn", "m.mlp")


def adapter(seed):
    """Random factors around random middle matrices."""
    draw = torch.Generator().manual_seed(seed)
    squares = {name: torch.randn(shape, generator=draw) for name, shape in middle_form(FORM).shapes.items()}
    return Adapter({**factors(seed).tensors, **squares})


def between(seed, whole):
    """Another adapter's middle matrices between the factors of this one."""
    return joined(adapter(seed), whole)


def product(one, module):
    """B R A, (fan_out, fan_in) in float64."""
    a, b, r = (one.tensors[f"{module}.lora_{letter}.weight"].double() for letter in "ABR")
    return b @ r @ a


@settings(max_examples=few(100))
@given(st.lists(st.integers(1, 99), min_size=1, max_size=5), st.integers(0, 99))
def test_the_mean_of_middle_matrices_is_the_mean_of_products(seeds, start):
    """B mean(R) A = mean(B R A): to float32's rounding of the mean, which LoRA's mean of factors is nowhere near."""
    whole, share = adapter(start), 1 / len(seeds)
    mean = joined(weighted_mean((share, moving(between(seed, whole))) for seed in seeds), whole)
    for module in MODULES:
        wanted = sum(share * product(between(seed, whole), module) for seed in seeds)
        assert (product(mean, module) - wanted).norm() < 1e-6 * wanted.norm() + 1e-6


@settings(max_examples=few(50))
@given(st.integers(0, 99))
def test_folded_it_is_a_plain_lora_of_the_same_product(seed):
    whole = adapter(seed)
    plain = folded(whole)
    assert plain.form == factors(0).form
    for module in MODULES:
        a, b = (plain.tensors[f"{module}.lora_{letter}.weight"].double() for letter in "AB")
        assert torch.allclose(b @ a, product(whole, module), rtol=1e-5, atol=1e-5)
    assert folded(plain) is plain


def test_the_part_that_moves_is_what_a_client_trains_and_fits_no_other():
    whole = adapter(1)
    part = moving(whole)
    assert leading(whole, RANK).sha256 == leading(part, RANK).sha256 == part.sha256
    assert with_frozen(part, whole).sha256 == with_frozen(whole, whole).sha256 == whole.sha256
    assert (rank_of(part.form), rank_of(whole.form), of_rank(whole.form, RANK)) == (RANK, RANK, whole.form)
    assert has_middle(part.form)
    assert not has_middle(factors(1).form)
    assert moving(factors(1)).sha256 == factors(1).sha256
    with pytest.raises(AdapterError, match="different tensors"):
        joined(factors(1), whole)
    with pytest.raises(AdapterError, match="different tensors"):
        joined(part, factors(1))
    with pytest.raises(AdapterError, match="without the factors"):
        folded(part)


def test_without_its_middle_matrices_it_has_no_effect():
    plain = folded(without_effect(adapter(2)))
    assert not any(plain.tensors[f"{module}.lora_B.weight"].any() for module in MODULES)
    assert initial(FORM, 7).sha256 == without_effect(initial(FORM, 7)).sha256


# --- its short form


def read(content, held, length=10**6):
    return read_short(bytearray(content), held, CodecSpec(), length, "it")


def test_who_has_the_factors_reads_the_middle_matrices_alone():
    whole, other = adapter(3), adapter(4)
    held = between(5, whole)
    content = middle_alone(whole)
    assert read(content, [other, held]).sha256 == whole.sha256
    assert len(content) == 40 + len(moving(whole).to_bytes())
    with pytest.raises(AdapterError, match="factors that are not here"):
        read(content, [other, factors(3)])
    assert drawn(whole, 3) is None


def test_middle_matrices_of_another_rank_are_refused_without_taking_memory():
    whole = adapter(3)
    wide = Adapter({name: torch.zeros(400, 400) for name in moving(whole).tensors})
    content = bytearray(middle_alone(whole)[:40] + wide.to_bytes())
    tracemalloc.start()
    try:
        with pytest.raises(AdapterError, match="has shape"):
            read(content, [whole])
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@settings(max_examples=few(200), deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_changed_and_cut_bytes_are_an_adapter_of_this_form_or_one_error(data):
    whole = adapter(3)
    content = bytearray(middle_alone(whole))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.sampled_from([0, 0, 1, 9]))
    with suppress(AdapterError):
        assert read(content[: len(content) - cut], [whole]).form == Form(dict(whole.form.shapes))
