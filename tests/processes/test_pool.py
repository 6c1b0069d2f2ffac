"""Worker processes: what they are told, what they say, and that none outlives its parent."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fccl.errors import FederationError
from fccl.processes import pool as pool_module
from fccl.processes.launch import Launch
from fccl.processes.pool import Died, Pool, Raised, Returned, Said
from tests.processes.workers import Broken, MakeCalculator, Slowly, is_alive, wait_until_gone

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(params=[True, False], ids=["forked", "each begun alone"])
def pool(request, monkeypatch):
    monkeypatch.setattr(pool_module, "FORKS", request.param)
    with Pool(MakeCalculator(10), 3) as found:
        found.start(2)
        yield found


def heard(pool, worker, method, *arguments):
    """Everything that a worker says until it has nothing to do."""
    pool.tell(worker, method, *arguments)
    events = []
    while not events or isinstance(events[-1], Said):
        events += pool.events()
    return events


def test_each_worker_has_an_object_of_its_own_in_a_process_of_its_own(pool):
    pids = [heard(pool, worker, "own_pid")[-1].value for worker in range(2)]
    assert len({*pids, os.getpid()}) == 3
    assert heard(pool, 1, "add", 5) == [Returned(1, 15)]
    assert (pool.count, pool.most) == (2, 3)


def test_each_worker_has_the_environment_that_is_its_own_and_so_has_the_one_that_replaces_it(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with Pool(MakeCalculator(10), 2, environments=[{"CUDA_VISIBLE_DEVICES": name} for name in ("0", "1")]) as pool:
        pool.start(2)
        for _ in range(2):
            said = [heard(pool, worker, "environment", "CUDA_VISIBLE_DEVICES")[-1].value for worker in range(2)]
            assert said == ["0", "1"]
            assert heard(pool, 1, "die")[-1] == Died(1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_words_come_before_the_end_of_the_work_and_in_their_order(pool):
    assert heard(pool, 0, "count", 3) == [*(Said(0, number) for number in range(3)), Returned(0, 3)]


def test_workers_are_at_work_beside_each_other(pool):
    """Either waits for ever, so the second can only have begun beside the first."""
    pool.tell(0, "wait")
    pool.tell(1, "wait")
    said = set()
    while len(said) < 2:
        said |= {event.worker for event in pool.events()}
    assert said == {0, 1}


def test_an_error_comes_back_as_it_was_with_its_hint(pool):
    event = heard(pool, 0, "fail", FederationError("too few", hint="take more"))[-1]
    assert isinstance(event, Raised)
    assert (type(event.error), str(event.error), event.error.hint) == (FederationError, "too few", "take more")


def test_an_error_that_cannot_travel_comes_as_its_words(pool):
    event = heard(pool, 0, "fail_strangely")[-1]
    assert (type(event.error), str(event.error)) == (RuntimeError, "Strange: cannot travel")
    assert heard(pool, 0, "add", 1) == [Returned(0, 11)]


def test_a_worker_that_is_killed_has_died_and_the_next_call_starts_another(pool):
    first = heard(pool, 0, "own_pid")[-1].value
    assert heard(pool, 0, "die") == [Died(0)]
    wait_until_gone(first)
    assert heard(pool, 0, "own_pid")[-1].value != first
    assert heard(pool, 1, "add", 2) == [Returned(1, 12)]


def test_closing_ends_workers_in_the_middle_of_their_work(pool):
    pids = []
    for worker in range(2):
        pool.tell(worker, "wait")
    while len(pids) < 2:
        pids += [event.value for event in pool.events()]
    assert all(map(is_alive, pids))
    pool.close()
    for pid in pids:
        wait_until_gone(pid)


def test_a_child_that_has_begun_before_the_pool_becomes_its_workers():
    with Pool(MakeCalculator(10), 2, Launch(3, "tests.processes.workers")) as pool:
        pool.start(2)
        assert [heard(pool, worker, "add", worker) for worker in range(2)] == [[Returned(0, 10)], [Returned(1, 11)]]


def test_workers_that_are_not_started_end_with_the_pool():
    with Pool(MakeCalculator(), 2) as pool:
        assert pool.count == 0


def test_an_object_that_cannot_be_made_is_a_death_and_no_endless_wait(capfd):
    with Pool(Broken(), 2) as pool:
        pool.start(2)
        dead = [event for _ in range(2) for event in pool.events()]
        assert sorted(event.worker for event in dead) == [0, 1]
        assert list(pool.events()) == []
    assert "no such object" in capfd.readouterr().err


def test_ready_waits_until_every_worker_has_made_its_object(tmp_path):
    with Pool(Slowly(tmp_path), 2, environments=[{"WHO": name} for name in "ab"]) as pool:
        pool.start(2)
        pool.ready()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
        assert heard(pool, 1, "add", 5) == [Returned(1, 5)]


def test_ready_does_not_wait_for_workers_that_have_died(capfd):
    with Pool(Broken(), 2) as pool:
        pool.start(2)
        pool.ready()
        assert list(pool.events()) == []
    assert "no such object" in capfd.readouterr().err


# A shell has jobs in the background ignore SIGINT, and their children inherit that.
PARENT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from fccl.processes.pool import Pool
from tests.processes.workers import MakeCalculator
print("the script runs", flush=True)
pool = Pool(MakeCalculator(), 2).__enter__()
pool.start(2)
pool.tell(0, "wait")
pool.tell(1, "own_pid")
pids = {}
while len(pids) < 2:
    pids |= {event.worker: event.value for event in pool.events()}
print(*pids.values(), flush=True)
while True:
    list(pool.events())
"""


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_end_with_their_parent_however_that_ends_and_do_not_run_its_script(tmp_path, blow):
    """One worker is in the middle of its work, the other has nothing to do."""
    (tmp_path / "script.py").write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert parent.stdout.readline() == b"the script runs\n"
    pids = [int(each) for each in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.send_signal(blow)
    assert parent.wait() == -blow
    for pid in pids:
        wait_until_gone(pid)
    assert parent.stdout.read() == b""
    parent.stdout.close()
