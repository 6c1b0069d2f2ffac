"""The heartbeats that a run view shows: of both folders, believed only when they are this client's and this run's."""

import os
import time

import pytest

from fccl.paths import ExchangePaths
from fccl.records.run import ClientStatus
from fccl.testing.processes import client_processes
from fccl.testing.toy import ToyLearner
from fccl.view.runs import RunReader
from fccl.view.status import run_status
from tests.view.logs import Logs, line


@pytest.fixture
def logs(tmp_path):
    return Logs(tmp_path / "logs")


def test_the_newest_heartbeat_of_this_run_counts(logs, tmp_path):
    logs.begin()
    exchange = tmp_path / "exchange"
    exchange.mkdir()
    logs.beat(0, "training", 0, 1010.0)
    logs.beat(0, "done", 0, 1020.0, exchange)
    logs.beat(1, "training", 0, 1030.0)
    logs.beat(1, "idle", 0, 1029.0, exchange)
    logs.beat(2, "training", 0, 1040.0, exchange, run_id="other")
    logs.beat(3, "training", 0, 1040.0, exchange)  # there are three clients
    view = RunReader(logs.paths, ExchangePaths(exchange)).refresh()
    assert [(status.client_id, status.state, status.time) for status in view.statuses] == [
        (0, "done", 1020.0),
        (1, "training", 1030.0),
    ]
    assert view.beating == {0}
    assert RunReader(logs.paths).refresh().beating == frozenset()


def test_a_client_that_waits_for_its_first_round_is_there_until_the_run_is_over(logs, tmp_path):
    logs.begin()
    logs.beat(0, "idle", 0, 1001.0, tmp_path, run_id="")
    logs.beat(1, "training", 0, 1001.0, tmp_path, run_id="")
    logs.beat(2, "idle", 0, 1001.0, run_id="")  # an orchestrator keeps no such heartbeat
    reader = RunReader(logs.paths, ExchangePaths(tmp_path))
    assert [status.client_id for status in reader.refresh().statuses] == [0]
    logs.commit(4)
    assert reader.refresh().statuses == ()


def test_a_heartbeat_that_lies_is_none(logs, tmp_path):
    logs.begin()
    exchange = tmp_path / "exchange"
    exchange.mkdir()
    good = line(ClientStatus(client_id=0, state="training", run_id="run", round=0, phase="sft", time=1.0))
    (tmp_path / "elsewhere").write_bytes(good)
    (exchange / "status_0.json").symlink_to(tmp_path / "elsewhere")
    (exchange / "status_1.json").write_bytes(good)  # of another client
    (exchange / "status_2.json").write_bytes(good.replace(b'"client_id":0', b'"client_id":2').replace(b"1.0", b"true"))
    (exchange / "status_02.json").write_bytes(good)
    os.mkfifo(exchange / "status_3.json")
    reader = RunReader(logs.paths, ExchangePaths(exchange))
    assert reader.refresh().statuses == ()
    (exchange / "status_0.json").unlink()
    (exchange / "status_0.json").write_bytes(good + b" " * 100_000)
    assert reader.refresh().statuses == ()
    (exchange / "status_0.json").write_bytes(good)
    assert len(reader.refresh().statuses) == 1


def test_a_client_process_that_is_killed_is_dead_and_the_other_is_not(logs, tmp_path):
    exchange = ExchangePaths(tmp_path / "exchange")
    exchange.root.mkdir()
    logs.begin(num_clients=2, heartbeat_stale_s=4)

    def standings():
        return [row.standing for row in run_status(reader.refresh(), time.time()).clients]

    def wait_for(expected):
        deadline = time.monotonic() + 60
        while standings() != expected:
            assert time.monotonic() < deadline, standings()
            time.sleep(0.05)

    reader = RunReader(logs.paths, exchange)
    with client_processes(exchange.root, {0: ToyLearner(), 1: ToyLearner()}, grace_s=60.0) as processes:
        while len(reader.refresh().beating) < 2:
            assert all(process.is_alive() for process in processes.values())
            time.sleep(0.05)
        wait_for(["waiting", "waiting"])
        processes[0].kill()
        wait_for(["dead", "waiting"])
