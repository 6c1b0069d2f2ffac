"""Noise: only where it was asked for, only in the shards, and as strong as it can be."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.data.examples import PreferencePair, SftExample
from fccl.data.noise import COPIES, deranged, spoil
from fccl.data.shards import ClientShard
from fccl.errors import SettingsError
from fccl.specs import DataSpec, PartitionSpec

SHARDS = tuple(
    ClientShard(
        client,
        tuple(SftExample(f"Q{client}{index}", f"A{client}{index}", "t", f"A{client}{index}") for index in range(9)),
        tuple(
            PreferencePair(f"Q{client}{index}", f"good {index}", f"bad {index}", "t", f"flaw {index}")
            for index in range(7)
        ),
    )
    for client in range(3)
)


def spoilt(kind, *clients, count=3):
    partition = PartitionSpec(num_clients=count, alpha=1, seed=5)
    spec = DataSpec(
        sft_data="a",
        va_data="b",
        test_examples=1,
        validation_examples=1,
        partition=partition,
        noisy_clients=clients,
        noise_kind=kind,
    )
    return spoil(SHARDS[:count], spec)


@given(st.lists(st.integers(0, 6), max_size=30), st.integers())
def test_as_few_items_stay_in_place_as_can_be(items, seed):
    moved = deranged(items, random.Random(seed))
    assert Counter(moved) == Counter(items)
    most = max(Counter(items).values(), default=0)
    assert sum(before == after for before, after in zip(items, moved, strict=True)) == max(0, 2 * most - len(items))


@pytest.mark.parametrize("kind", ["shuffled", "flipped", "duplicated"])
def test_the_other_clients_are_untouched_and_the_same_seed_gives_the_same_noise(kind):
    shards = spoilt(kind, 1)
    assert shards[0] == SHARDS[0]
    assert shards[2] == SHARDS[2]
    assert shards[1] != SHARDS[1]
    assert spoilt(kind, 1) == shards
    assert spoilt(kind) == SHARDS


def test_shuffled_no_row_keeps_its_response_and_none_is_lost():
    before, after = SHARDS[1], spoilt("shuffled", 1)[1]
    assert Counter(example.response for example in after.sft) == Counter(example.response for example in before.sft)
    for old, new in zip(before.sft, after.sft, strict=True):
        assert (old.instruction, old.topic, old.answer) == (new.instruction, new.topic, new.answer)
        assert old.response != new.response
    for old, new in zip(before.va, after.va, strict=True):
        assert old.instruction == new.instruction
        assert old.preferred != new.preferred
        assert new.preferred.split()[1] == new.dispreferred.split()[1] == new.flaw.split()[1]


def test_flipped_pairs_change_places_and_instructions_stay():
    before, after = SHARDS[1], spoilt("flipped", 1)[1]
    assert after.sft == before.sft
    assert [(pair.dispreferred, pair.preferred) for pair in after.va] == [
        (pair.preferred, pair.dispreferred) for pair in before.va
    ]


def test_duplicated_every_row_comes_four_times():
    after = spoilt("duplicated", 0, 2)
    for client in (0, 2):
        assert Counter(after[client].sft) == Counter(dict.fromkeys(SHARDS[client].sft, COPIES))
        assert Counter(after[client].va) == Counter(dict.fromkeys(SHARDS[client].va, COPIES))


def test_an_unknown_client_is_refused_with_the_range():
    with pytest.raises(SettingsError, match="client 3, and there are only clients 0 to 2"):
        spoilt("flipped", 1, 3)
