"""Shares of jobs: every job once, even shares, and the same worker again."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.processes.sharing import share_out
from tests.examples import few

sizes = st.dictionaries(st.integers(0, 99), st.integers(1, 50), min_size=1, max_size=12)
homes = st.dictionaries(st.integers(0, 99), st.integers(0, 6))


def longest(queues, sizes):
    return max(sum(sizes[job] for job in queue) for queue in queues.values())


def best(sizes, workers):
    """The shortest longest queue, of all that there are."""
    found = itertools.product(range(workers), repeat=len(sizes))
    return min(max(map(sum, by_worker(each, list(sizes.values())))) for each in found)


def by_worker(owners, sizes):
    return [
        [size for owner, size in zip(owners, sizes, strict=True) if owner == worker]
        for worker in range(max(owners) + 1)
    ]


@given(sizes, homes, st.integers(1, 6))
@settings(max_examples=few(100))
def test_every_job_is_in_one_queue_longest_first_and_no_queue_is_empty(sizes, homes, workers):
    queues = share_out(sizes, homes, workers)
    assert sorted(job for queue in queues.values() for job in queue) == sorted(sizes)
    assert set(queues) <= set(range(workers))
    for queue in queues.values():
        assert queue
        assert [sizes[job] for job in queue] == sorted((sizes[job] for job in queue), reverse=True)


@given(st.dictionaries(st.integers(0, 99), st.integers(1, 50), min_size=1, max_size=6), homes, st.integers(1, 3))
@settings(max_examples=few(40))
def test_the_longest_queue_is_near_the_shortest_there_can_be(sizes, homes, workers):
    """Graham 1969: longest first is within 4/3 - 1/(3 m) of the best; a tenth of that is left for jobs' homes."""
    bound = (4 / 3 - 1 / (3 * workers)) * best(sizes, workers)
    assert longest(share_out(sizes, homes, workers), sizes) <= 1.1 * bound + 1e-9


@given(sizes, homes, st.integers(1, 6))
@settings(max_examples=few(100))
def test_jobs_that_come_again_go_where_they_were(sizes, homes, workers):
    first = share_out(sizes, homes, workers)
    again = share_out(sizes, {job: worker for worker, queue in first.items() for job in queue}, workers)
    assert again == first


@pytest.mark.parametrize(("homes", "expected"), [({1: 5}, {0: [0], 1: [1]}), ({}, {0: [0], 1: [1]})])
def test_a_home_that_is_no_worker_any_more_is_none(homes, expected):
    assert share_out({0: 2, 1: 1}, homes, 2) == expected
