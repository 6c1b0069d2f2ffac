"""A sample of prepared data is prepared data: evenly spaced by length, its clients to each other as the whole's."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.data.examples import SftExample
from fccl.data.shards import ClientShard
from fccl.library.sample import Measure, evenly, sampled
from tests.examples import few


@given(st.lists(st.integers(1, 500), min_size=1, max_size=200), st.integers(1, 40))
@settings(max_examples=few(100), deadline=None)
def test_an_even_choice_has_each_place_once_and_a_part_of_the_examples_from_every_length(lengths, count):
    places = evenly(lengths, count)
    assert places == sorted(set(places))
    assert len(places) == min(count, len(lengths))
    order = sorted(lengths)
    for step, length in enumerate(sorted(lengths[place] for place in places)):
        first, last = step * len(order) // len(places), -(-(step + 1) * len(order) // len(places)) - 1
        assert order[first] <= length <= order[last]


def client(number, count):
    return ClientShard(number, tuple(SftExample(f"{number} {place}", "yes") for place in range(count)), ())


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(1, 4), st.integers(1, 20))
@settings(max_examples=few(100), deadline=None)
def test_the_largest_clients_are_taken_and_keep_their_proportions(sizes, clients, examples):
    shards = [client(number, size) for number, size in enumerate(sizes)]
    lengths = {"sft": {number: [3] * size for number, size in enumerate(sizes)}, "va": {}}
    found = sampled(shards, lengths, Measure(min(clients, len(sizes)), examples))
    largest = sorted(sizes, reverse=True)[: len(found)]
    assert [shard.client_id for shard in found] == list(range(len(found)))
    assert sorted((len(shard.sft) for shard in found), reverse=True) == [
        min(size, -(-examples * size // largest[0])) for size in largest
    ]
