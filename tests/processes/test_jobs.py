"""Jobs that workers share, and workers that die with one."""

import pytest

from fccl.processes.jobs import LOST, Jobs
from fccl.processes.pool import Pool
from tests.processes.workers import MakeCalculator, wait_until_gone


@pytest.fixture
def pool():
    with Pool(MakeCalculator(), 2) as found:
        found.start(2)
        yield found


def test_every_job_comes_back_with_what_it_said(pool):
    said = []
    queues = {0: [1, 2], 1: [3]}
    jobs = Jobs(pool, "count", queues, lambda job: (job,), lambda job, value: said.append((job, value)))
    assert sorted(jobs.outcomes()) == [(1, 1), (2, 2), (3, 3)]
    assert sorted(said) == [(job, value) for job in (1, 2, 3) for value in range(job)]


def test_a_job_whose_process_dies_is_done_again_in_another_and_the_others_go_on(pool, tmp_path):
    again = []
    queues = {0: [1, 2], 1: [3]}
    jobs = Jobs(
        pool, "die_unless", queues, lambda job: (str(tmp_path / "died"),), lambda job, value: None, again.append
    )
    found = dict(jobs.outcomes())
    assert sorted(found) == [1, 2, 3]
    assert LOST not in found.values()
    assert 1 <= len(again) <= 2  # both workers may have found that nobody has died yet


def test_a_job_that_kills_its_process_twice_is_lost(pool):
    again = []
    jobs = Jobs(pool, "die", {0: [7]}, lambda job: (), lambda job, value: None, again.append)
    assert list(jobs.outcomes()) == [(7, LOST)]
    assert again == [7]
    assert list(Jobs(pool, "add", {0: [7]}, lambda job: (job,), lambda job, value: None).outcomes()) == [(7, 7)]


def test_what_a_job_raises_is_raised_and_other_jobs_can_be_done_afterwards(pool):
    jobs = Jobs(pool, "fail", {0: [0]}, lambda job: (ValueError("bad job"),), lambda job, value: None)
    with pytest.raises(ValueError, match="bad job"):
        list(jobs.outcomes())
    assert list(Jobs(pool, "add", {0: [7]}, lambda job: (job,), lambda job, value: None).outcomes()) == [(7, 7)]


def test_jobs_that_are_left_early_end_with_their_processes(pool):
    pids = []

    def hear(job, pid):
        pids.append(pid)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Jobs(pool, "wait", {0: [1], 1: [2]}, lambda job: (), hear).outcomes())
    wait_until_gone(pids[0])
    assert dict(Jobs(pool, "add", {0: [3], 1: [4]}, lambda job: (job,), hear).outcomes()) == {3: 3, 4: 4}
