"""Padding to a few sizes has no part in a loss or a gradient."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.model.buckets import LEAST, Buckets, Size, bucket, own_size, padded
from fccl.model.packing import pack
from tests.examples import few
from tests.model.test_gpt2 import CONTEXT, engine, far, gradients, pair, peft_model, row

MODEL = peft_model("all")
sizes = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=6)


@given(st.integers(1, 10**7))
def test_a_bucket_holds_its_count_with_at_most_a_quarter_of_padding(count):
    size = bucket(count)
    assert size >= count
    assert bucket(size) == size
    assert size == LEAST or size - count < size / 4


def test_there_are_four_sizes_to_a_doubling():
    assert {bucket(count) for count in range(1025, 2049)} == {1280, 1536, 1792, 2048}


@given(sizes, st.booleans())
def test_no_two_tokens_stand_in_one_place_and_sequences_of_padding_are_no_longer_than_others(lengths, pairs):
    prompts = [pair(*size, 3, seed) if pairs else (row(*size, seed),) for seed, size in enumerate(lengths)]
    found = padded(pack(prompts), Buckets(6, 1 + pairs)(pack(prompts)))
    rows, longest = found.shape
    assert len(set(found.places.tolist())) == len(found.ids) <= rows * longest
    assert int(found.places.max()) < rows * longest
    assert found.starts[0] == 0
    assert found.starts[-1] == len(found.ids)
    assert 0 <= int(found.starts.diff().min()) <= int(found.starts.diff().max()) <= longest
    assert len(found.starts) == rows + 1


@settings(max_examples=few(25), deadline=None)
@given(lengths=sizes, pairs=st.booleans(), seed=st.integers(0, 99))
def test_padding_changes_neither_log_probabilities_nor_gradients(lengths, pairs, seed):
    prompts = [pair(*size, 5, seed + 2 * n) if pairs else (row(*size, seed + n),) for n, size in enumerate(lengths)]
    packed, found = pack(prompts), []
    real = len(packed.rows)
    for batch in (packed, padded(packed, Buckets(6, 1 + pairs)(packed))):
        gpt2, flat = engine(MODEL)
        unread = torch.arange(len(batch.rows)) >= real  # a loss gives these no weight
        log_probs = gpt2.learn(batch, lambda log_probs, unread=unread: log_probs.cos().masked_fill(unread, 0))
        found.append((log_probs[:real], gradients(flat), batch.sums(log_probs)[: packed.responses]))
    assert torch.allclose(found[0][0], found[1][0], rtol=0, atol=1e-12)
    assert torch.allclose(found[0][2], found[1][2], rtol=0, atol=1e-11)
    assert far(found[1][1], found[0][1]) < 1e-12


def test_a_batch_at_its_own_size_is_itself():
    packed = pack([pair(3, 5, 2, 1), pair(2, 9, 1, 3)])
    same = padded(packed, own_size(packed))
    for name, value in vars(packed).items():
        other = getattr(same, name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other


def test_a_batch_that_is_too_large_for_a_size_is_refused():
    packed = pack([(row(3, 5, 1),)])
    fits = Size(tokens=10, predicted=6, prompts=2, longest=9, responses=2)
    padded(packed, fits)
    for change in ({"tokens": 7}, {"predicted": 4}, {"longest": 7}, {"prompts": 1}, {"responses": 0}):
        with pytest.raises(ValueError, match="does not fit"):
            padded(packed, replace(fits, **change))
    with pytest.raises(ValueError, match="no response"):
        padded(packed, replace(fits, responses=1))


def test_the_longest_batch_of_a_context_fits_its_bucket():
    packed = pack([(row(1, CONTEXT - 1, seed),) for seed in range(8)])
    assert padded(packed, Buckets(8, 1)(packed)).shape[1] >= CONTEXT
