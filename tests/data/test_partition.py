"""The partition: nothing lost, nobody empty-handed, skew where it was asked for and nowhere else."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.data.examples import PreferencePair, SftExample
from fccl.data.partition import client_sizes, partition, topic_shares
from fccl.errors import DataError
from fccl.specs import PHASES, PartitionSpec
from tests.examples import few


def spec_of(clients=4, alpha=0.5, skew=1.0, seed=0):
    return PartitionSpec(num_clients=clients, alpha=alpha, size_skew=skew, seed=seed)


def sft_of(counts):
    return [
        SftExample(f"question {topic} {index}", "A", f"topic {topic}")
        for topic, count in enumerate(counts)
        for index in range(count)
    ]


def va_of(counts):
    return [
        PreferencePair(f"pair {topic} {index}", "A", "B", f"topic {topic}")
        for topic, count in enumerate(counts)
        for index in range(count)
    ]


def table(shards, phase):
    """(clients, topics) counts."""
    topics = sorted({example.topic for shard in shards for example in shard.of(phase)})
    return np.array(
        [[sum(example.topic == topic for example in shard.of(phase)) for topic in topics] for shard in shards]
    )


ALPHAS = st.none() | st.floats(1e-3, 1e6)
COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=6)


@given(COUNTS, COUNTS, st.integers(1, 12), ALPHAS, st.floats(1, 50), st.integers(0, 2**40))
@settings(deadline=None, max_examples=few(60))
def test_shards_are_disjoint_their_union_is_everything_and_everybody_has_something(
    sft_counts, va_counts, clients, alpha, skew, seed
):
    sft, va, spec = sft_of(sft_counts), va_of(va_counts), spec_of(clients, alpha, skew, seed)
    if min(len(sft), len(va)) < clients:
        with pytest.raises(DataError, match=f"too few for {clients} client"):
            partition(sft, va, spec)
        return
    shards = partition(sft, va, spec)
    assert [shard.client_id for shard in shards] == list(range(clients))
    for phase, examples in zip(PHASES, (sft, va), strict=True):
        assert Counter(example for shard in shards for example in shard.of(phase)) == Counter(examples)
        assert all(shard.of(phase) for shard in shards)
    assert partition(sft, va, spec) == shards


def test_examples_that_are_equal_are_dealt_as_often_as_they_come():
    sft = [SftExample("Q", "A", "t")] * 10
    shards = partition(sft, va_of([4]), spec_of(3))
    assert sum(len(shard.sft) for shard in shards) == 10


@given(COUNTS.filter(lambda counts: sum(counts) >= 8), st.integers(1, 8), st.floats(1, 10), st.integers(0, 2**40))
@settings(deadline=None, max_examples=few(50))
def test_without_alpha_every_topic_is_dealt_by_size_within_one_example(counts, clients, skew, seed):
    spec = spec_of(clients, None, skew, seed)
    found = table(partition(sft_of(counts), va_of(counts), spec), "sft")
    expected = np.outer(client_sizes(spec), [count for count in counts if count])
    moved = (
        1 if (expected.sum(axis=1) < len(counts) + 1).any() else 0
    )  # one more where the empty-handed were given something
    assert np.abs(found - expected).max() < 1 + clients * moved


def test_iid_is_iid():
    found = table(partition(sft_of([400, 200, 100]), va_of([40]), spec_of(4, None)), "sft")
    assert np.abs(found - np.array([100, 50, 25])).max() <= 1


@given(st.integers(2, 10), st.floats(1, 20), st.integers(0, 2**40))
def test_sizes_go_geometrically_from_one_to_the_skew_in_a_seeded_order(clients, skew, seed):
    sizes = client_sizes(spec_of(clients, None, skew, seed))
    assert sizes.sum() == pytest.approx(1)
    ordered = np.sort(sizes)
    assert ordered[-1] / ordered[0] == pytest.approx(skew)
    assert ordered[1:] / ordered[:-1] == pytest.approx(skew ** (1 / (clients - 1)))


def test_the_size_skew_is_reached_within_rounding():
    totals = table(partition(sft_of([500, 500]), va_of([90]), spec_of(3, None, 4.0)), "sft").sum(axis=1)
    assert sorted(totals) == pytest.approx([1000 / 7, 2000 / 7, 4000 / 7], abs=2)


@given(
    st.integers(1, 1000),
    st.sampled_from([5e-324, 1e-300, 1e-3, 0.3, 1.0, 1e3, 1e6, 1e300]),
    st.sampled_from([1.0, 10.0, 1e300]),
    st.text(max_size=3),
)
@settings(deadline=None, max_examples=few(60))
def test_shares_are_a_distribution_however_extreme_alpha_is(clients, alpha, skew, topic):
    with np.errstate(all="raise", under="ignore"):
        shares = topic_shares(topic, spec_of(clients, alpha, skew))
    assert shares.shape == (clients,)
    assert shares.sum() == pytest.approx(1)
    assert (shares >= 0).all()


def test_a_large_alpha_comes_near_to_the_sizes_and_a_small_one_to_a_single_client():
    near = spec_of(10, 1e6, 3.0)
    assert topic_shares("t", near) == pytest.approx(client_sizes(near), rel=0.01)
    assert np.mean([topic_shares(f"t{index}", spec_of(10, 1e-3)).max() for index in range(50)]) > 0.97


@pytest.mark.parametrize("alpha", [0.05, 0.5, 5.0])
def test_shares_have_the_moments_of_the_dirichlet_distribution(alpha):
    spec = spec_of(4, alpha, 3.0)
    sizes = client_sizes(spec)
    draws = np.array([topic_shares(f"topic {index}", spec) for index in range(2000)])
    assert draws.mean(axis=0) == pytest.approx(sizes, abs=0.03)
    assert draws.var(axis=0) == pytest.approx(sizes * (1 - sizes) / (alpha * 4 + 1), abs=0.015)


def test_small_alpha_is_more_skewed_than_large():
    def distance(alpha, seed):
        """Mean total variation between a topic's shares and the sizes."""
        return np.mean(
            [np.abs(topic_shares(f"t{index}", spec_of(5, alpha, seed=seed)) - 0.2).sum() / 2 for index in range(100)]
        )

    for seed in range(3):
        falling = [distance(alpha, seed) for alpha in (0.01, 0.1, 1.0, 10.0, 1000.0)]
        assert falling == sorted(falling, reverse=True)
        assert falling[0] > 0.7
        assert falling[-1] < 0.02


def test_a_client_has_one_taste_for_both_kinds():
    shards = partition(sft_of([300, 300, 300]), va_of([150, 150, 150]), spec_of(4, 0.1))
    sft, va = table(shards, "sft") / 300, table(shards, "va") / 150
    assert np.abs(sft - va).max() <= 0.02


def test_another_seed_deals_otherwise():
    assert partition(sft_of([50]), va_of([50]), spec_of(seed=1)) != partition(
        sft_of([50]), va_of([50]), spec_of(seed=2)
    )


def test_as_many_examples_as_clients_and_a_thousand_clients():
    shards = partition(sft_of([1000]), va_of([600, 900]), spec_of(1000, 1e-3))
    assert all(len(shard.sft) == 1 and shard.va for shard in shards)
