"""When something was heard of, by the reader's own clock, whatever the clocks of the writers and of the file system
say.
"""

import os
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.paths import ExchangePaths
from fccl.records.run import ClientStatus
from fccl.view import hearing as hearing_module
from fccl.view.hearing import Hearing
from fccl.view.runs import RunReader
from fccl.view.status import run_status
from tests.view.logs import BEGAN, Logs, line

STALE_S = 60.0
SKEWS = (-86_400.0, -300.0, -61.0, 0.0, 61.0, 300.0, 86_400.0)


class Clock:
    def __init__(self, now=BEGAN):
        self.now = now

    def __call__(self):
        return self.now


def hearing(clock, remote):
    return Hearing(None, clock, lambda folder: remote)


def file(written, inode=1):
    return SimpleNamespace(st_ino=inode, st_mtime_ns=int(written * 1e9), st_mtime=written, st_size=1)


@pytest.mark.parametrize("clock_of_client", SKEWS)
def test_a_clients_clock_makes_it_neither_dead_nor_alive(tmp_path, clock_of_client):
    """One that has just written is alive, though its clock is behind; one that has not for long is dead, though its
    clock is ahead.
    """
    logs, exchange = Logs(tmp_path / "logs").begin(heartbeat_stale_s=STALE_S), ExchangePaths(tmp_path)
    now = BEGAN + 200
    for client, written in ((0, now - 1), (1, now - STALE_S - 1)):
        status = ClientStatus(
            client_id=client,
            state="training",
            run_id="run",
            round=0,
            phase="sft",
            time=max(0.0, written + clock_of_client),
        )
        exchange.status(client).write_bytes(line(status))
        os.utime(exchange.status(client), (written, written))
    found = run_status(RunReader(logs.paths, exchange).refresh(), now)
    assert [row.standing for row in found.clients[:2]] == ["training", "dead"]
    assert [round(row.age_s) for row in found.clients[:2]] == [1, 61]
    assert found.standing == "running"


@pytest.mark.parametrize("ahead", SKEWS)
def test_a_servers_clock_makes_its_run_neither_silent_nor_running(tmp_path, ahead):
    logs = Logs(tmp_path / "logs").begin(client_timeout_s=100)
    logs.event("resumed", max(0.0, BEGAN + ahead))
    os.utime(logs.paths.progress, (BEGAN, BEGAN))
    assert run_status(RunReader(logs.paths).refresh(), BEGAN + 99).standing == "running"
    assert run_status(RunReader(logs.paths).refresh(), BEGAN + 101).standing == "silent"


@pytest.mark.parametrize("skew", SKEWS)
def test_on_a_file_system_with_another_clock_who_lives_is_heard_now_and_who_is_silent_grows_old(skew):
    clock = Clock()
    ear = hearing(clock, remote=True)
    for beat in range(20):
        clock.now = BEGAN + 5 * beat
        assert clock.now - ear.hear("alive", file(clock.now + skew)) == pytest.approx(0.0, abs=0.01)
        assert clock.now - ear.hear("dead", file(BEGAN - 7 + skew, inode=2)) == pytest.approx(5 * beat + 7, abs=0.01)


@pytest.mark.parametrize("skew", SKEWS)
def test_where_all_are_silent_they_are_dead_once_they_were_watched_for_long_enough(skew):
    clock = Clock()
    ear = hearing(clock, remote=True)
    assert ear.hear("one", file(BEGAN - 10_000 + skew)) == BEGAN
    clock.now += STALE_S
    assert clock.now - ear.hear("one", file(BEGAN - 10_000 + skew)) == pytest.approx(STALE_S)


def test_a_file_that_says_it_is_of_the_future_was_heard_when_it_was_first_seen():
    clock = Clock()
    ear = hearing(clock, remote=False)
    assert ear.hear("one", file(BEGAN + 10_000)) == BEGAN
    clock.now += 90
    assert ear.hear("one", file(BEGAN + 10_000)) == BEGAN
    assert ear.hear("one", file(BEGAN + 20_000)) == BEGAN + 90


@given(
    st.lists(st.tuples(st.floats(0, 100), st.sampled_from("abc"), st.integers(0, 9 * 10**9)), max_size=20),
    st.booleans(),
)
def test_nothing_was_heard_before_it_could_be_or_after_it_was_seen(looks, remote):
    clock, last = Clock(), {}
    ear = hearing(clock, remote)
    for later, name, written in looks:
        clock.now += later
        heard = ear.hear(name, file(written))
        assert heard <= clock.now
        if name in last and last[name][1] != written:
            assert heard >= last[name][0]
        last[name] = (clock.now, written)


def test_a_file_system_is_asked_about_once(tmp_path):
    asked = []
    ear = Hearing(tmp_path, Clock(), lambda folder: bool(asked.append(folder)))
    for _ in range(3):
        ear.hear("one", file(BEGAN))
    assert asked == [tmp_path]
    assert hearing_module.is_remote(tmp_path) in (True, False)
