"""Attention by torch's kernel for variable lengths, with a stand-in that does what its page describes."""

import pytest
import torch

from fccl.model import variable_length
from fccl.model.buckets import Buckets, padded
from fccl.model.gpt2 import attention
from fccl.model.gpt2_model import attention_for
from fccl.model.packing import pack
from fccl.model.variable_length import attention_by_starts, takes_channels, variable_length_kernel
from tests.model.test_gpt2 import pair, row
from tests.model.test_packed_attention import by_loops

CPU, BATCH = torch.device("cpu"), [(row(3, 5, 1),), (row(20, 30, 2),), (row(1, 1, 4),)]


@pytest.fixture
def ampere(monkeypatch):
    """As if this device had torch's kernel for variable lengths."""
    monkeypatch.setattr("fccl.model.gpt2_model.has_variable_length", lambda device: True)
    monkeypatch.setattr(variable_length, "variable_length_kernel", lambda: by_loops)


def both_ways(attend, packed):
    """Attention of two heads of 16 channels, and its gradient."""
    draw = torch.Generator().manual_seed(1)
    qkv = torch.randn(len(packed.ids), 96, generator=draw)
    found, backward = attend(qkv, packed, 2, learn=True)
    return found, backward(torch.randn(found.shape, generator=draw))


@pytest.mark.parametrize("bucketed", [False, True])
def test_it_is_the_attention_of_padded_rows_but_for_bfloat16(ampere, bucketed):
    packed = pack(BATCH)
    real = len(packed.ids)
    batch = padded(packed, Buckets(3, 1)(packed)) if bucketed else packed
    for found, expected in zip(both_ways(attention_by_starts, batch), both_ways(attention, batch), strict=True):
        assert found.dtype == torch.float32
        apart = (found[:real] - expected[:real]).norm() / expected[:real].norm()
        assert 1e-4 < float(apart) < 0.02


def test_only_bfloat16_and_heads_that_the_kernel_takes_go_that_way(ampere):
    assert attention_for(CPU, "bf16", 64) is not attention
    assert attention_for(CPU, "fp32", 64) is attention
    assert attention_for(CPU, "bf16", 12) is attention
    assert [takes_channels(each) for each in (8, 64, 256, 257, 264)] == [True, True, True, False, False]


def test_pairs_that_share_their_prompt_keep_their_rows(ampere):
    """The kernel knows no mask: it would let the rejected response see the chosen one."""
    packed = pack([pair(3, 5, 2, 1)])
    found, expected = both_ways(attention_for(CPU, "bf16", 16), packed), both_ways(attention, packed)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(found, expected, strict=True))


def test_a_cpu_never_goes_that_way():
    assert attention_for(CPU, "bf16", 64) is attention


@pytest.mark.skipif(variable_length_kernel() is None, reason="the installed torch has no such kernel")
def test_the_installed_torch_takes_the_call():
    """On the meta device: shapes and arguments without numbers."""
    packed = pack(BATCH).to(torch.device("meta"))
    found, _ = attention_by_starts(torch.empty(len(packed.ids), 96, device="meta"), packed, 2, learn=False)
    assert found.shape == (len(packed.ids), 32)
