"""An audit's data: members and others are parted by a draw, canaries are in no text, and repeats are repeats."""

from collections import Counter

import pytest

from fccl.data.examples import PreferencePair, SftExample
from fccl.data.shards import ClientShard
from fccl.library.canaries import FEWEST, REPEATS, audit_data, canaries


def shard(count):
    pairs = (PreferencePair("ask", "yes", "no"),)
    return ClientShard(1, tuple(SftExample(f"say {place}", "yes") for place in range(count)), pairs)


def test_half_of_the_clients_examples_are_held_out_and_the_other_half_is_trained_on_with_the_canaries():
    whole = shard(2 * FEWEST + 1)
    data = audit_data(whole, seed=7, planted=3, unused=10)
    trained = Counter(data.shard.sft)
    assert (len(data.members), len(data.others)) == (FEWEST, FEWEST + 1)
    assert {*data.members, *data.others} == set(whole.sft)
    assert all(trained[member] == 1 for member in data.members)
    assert not any(other in trained for other in (*data.others, *data.unused))
    for group, repeats in zip(data.canaries, REPEATS, strict=True):
        assert [trained[canary] for canary in group] == [repeats] * 3
    assert sum(trained.values()) == FEWEST + 3 * sum(REPEATS)
    assert (data.shard.va, data.shard.client_id) == (whole.va, 1)


def test_an_example_that_stands_there_twice_is_a_member_or_is_not():
    twice = ClientShard(0, shard(2 * FEWEST).sft * 2, ())
    data = audit_data(twice, seed=7, planted=2, unused=2)
    assert not set(data.members) & set(data.others)


def test_the_draw_has_the_seed_of_the_run_and_canaries_are_all_different():
    first, again, other = (audit_data(shard(500), seed, planted=2, unused=5) for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(canaries(1500, seed=3))) == 1500


def test_a_client_with_too_few_examples_is_refused_with_the_number():
    with pytest.raises(ValueError, match=f"client 1 has {2 * FEWEST - 1} different examples"):
        audit_data(shard(2 * FEWEST - 1), seed=7)
