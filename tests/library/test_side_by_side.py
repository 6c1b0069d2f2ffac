"""How many processes a run takes, and that they change no byte of it."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import fccl
from fccl.config import Settings, load_settings
from fccl.errors import SettingsError
from fccl.library.narrow import begun
from fccl.library.side_by_side import (
    A_PROCESS,
    PER_WEIGHT,
    evaluation_processes,
    paced,
    side_by_side,
    that_fit,
    usual_processes,
)
from fccl.paths import LogPaths
from fccl.records.run import ClientStatus, RoundRecord
from fccl.storage.reading import read_records, read_value
from fccl.testing.toy import ToyLearner
from tests.apps.commands import begun as once_begun
from tests.apps.commands import finished, short_run, start
from tests.processes.workers import wait_until_gone

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = {"max_sft_examples": 36, "max_va_examples": 24, "fed_rounds": 1, "num_clients": 3, "validation_examples": 4}


@pytest.fixture(autouse=True)
def without_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def cores(monkeypatch):
    return lambda count: monkeypatch.setattr(torch, "get_num_threads", lambda: count)


# --- how many


@pytest.mark.parametrize(
    ("cores_here", "clients", "processes", "threads"),
    [(1, 3, 1, 1), (2, 1, 1, 2), (2, 2, 2, 1), (2, 3, 3, 1), (2, 5, 2, 1), (4, 5, 5, 1), (8, 3, 3, 2), (8, 100, 10, 1)],
)
def test_auto_takes_all_cores_and_processes_of_like_shares(cores, cores_here, clients, processes, threads):
    cores(cores_here)
    found = side_by_side(load_settings({"num_clients": clients}), {})
    assert (found.client_processes, found.threads) == (processes, threads)
    assert side_by_side(found, {}) == found


@pytest.mark.parametrize(
    ("given", "processes", "threads"),
    [
        ({"threads": 1}, 3, 1),
        ({"threads": 4}, 1, 4),
        ({"client_processes": 1}, 1, 4),
        ({"client_processes": 2}, 2, 2),
        ({"client_processes": 9}, 3, 1),
        ({"client_processes": 2, "threads": 3}, 2, 3),
        ({"clients_at_once": "2"}, 1, 4),
    ],
)
def test_what_is_named_is_kept_and_the_rest_follows_on_four_cores(cores, given, processes, threads):
    cores(4)
    found = side_by_side(begun(load_settings(given), print), given)
    assert (found.client_processes, found.threads) == (processes, threads)


@pytest.mark.parametrize("at_once", range(2, 9))
def test_more_processes_than_cores_are_taken_only_for_like_shares(at_once):
    for clients in range(1, 60):
        count = usual_processes(clients, at_once)
        assert min(clients, at_once) <= count < 2 * at_once
        assert count <= at_once or clients % count == 0


def test_memory_bounds_the_number_and_leaves_one(tiny_model):
    each = A_PROCESS + PER_WEIGHT * sum(tensor.nbytes for tensor in tiny_model.weights().values())
    assert [that_fit(3, tiny_model, free) for free in (None, 9 * each, 3 * each, 3 * each - 1, each, 0)] == [
        3,
        3,
        3,
        2,
        1,
        1,
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"client_processes": 2, "clients_at_once": "2"}, "CLIENT_PROCESSES=2: CLIENTS_AT_ONCE=2 trains them in one"),
        ({"client_processes": 65}, "CLIENT_PROCESSES=65: allowed is a whole number >= 0 and <= 64"),
    ],
)
def test_several_processes_where_there_can_be_one_are_one_line(given, message):
    with pytest.raises(SettingsError, match=message):
        side_by_side(begun(load_settings(given), print), given)


def test_a_gpu_has_one_process(monkeypatch):
    monkeypatch.setattr("fccl.library.side_by_side.own_device", lambda: torch.device("cuda"))
    assert side_by_side(load_settings({}), {}).client_processes == 1
    with pytest.raises(SettingsError, match="CLIENT_PROCESSES=2: this machine has a GPU"):
        side_by_side(load_settings({"client_processes": 2}), {"client_processes": 2})


@pytest.mark.parametrize(
    ("given", "processes"),
    [({}, 2), ({"client_processes": 1}, 1), ({"client_processes": 2}, 2), ({"num_clients": 1}, 1)],
)
def test_several_gpus_have_a_process_each_and_no_more(monkeypatch, cores, given, processes):
    cores(8)
    monkeypatch.setattr("fccl.library.side_by_side.own_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    found = side_by_side(load_settings(given), given)
    assert (found.client_processes, found.threads) == (processes, 8 // processes)
    with pytest.raises(SettingsError, match="CLIENT_PROCESSES=3: this machine has 2 GPUs"):
        side_by_side(load_settings({"client_processes": 3}), {"client_processes": 3})


@pytest.mark.slow
def test_processes_that_have_a_gpu_each_change_no_byte_of_a_run(tmp_path, monkeypatch):
    """No GPU is here: each process is begun by itself, with the name of one, and computes on the CPU."""
    alone = fccl.FederatedRun(**SMALL, threads=1, data_dir=tmp_path / "data", log_dir=tmp_path / "alone").train()
    monkeypatch.setattr("fccl.library.side_by_side.gpus_here", lambda: ("0", "1"))
    said = []
    run = fccl.FederatedRun(
        **SMALL, threads=1, client_processes=2, data_dir=tmp_path / "data", log_dir=tmp_path / "two", tell=said.append
    )
    assert run.train().sha256 == alone.sha256
    assert "Clients train in 2 processes, 1 thread and one GPU each." in said


@pytest.mark.parametrize(
    ("given", "models", "free", "processes"),
    [
        ({"threads": 1}, 3, None, 3),
        ({"threads": 1}, 4, None, 2),
        ({"threads": 1}, 1, None, 1),
        ({"threads": 1}, 0, None, 1),
        ({"threads": 2}, 3, None, 1),
        ({"threads": 1}, 3, 0, 1),
        ({"threads": 1, "client_processes": 1}, 3, None, 1),
        ({"threads": 2, "client_processes": 2}, 3, None, 2),
        ({"threads": 1, "client_processes": 9}, 3, None, 3),
        ({"threads": 0}, 3, None, 1),
    ],
)
def test_models_of_a_run_are_evaluated_in_as_many_processes_as_two_cores_carry(
    cores, tiny_model, given, models, free, processes
):
    cores(2)
    assert evaluation_processes(load_settings(given), given, models, tiny_model, free) == processes


def test_a_gpu_evaluates_in_one_process(monkeypatch, tiny_model):
    monkeypatch.setattr("fccl.library.side_by_side.own_device", lambda: torch.device("cuda"))
    given = {"threads": 1, "client_processes": 2}
    assert evaluation_processes(load_settings({"threads": 1}), {}, 3, tiny_model, None) == 1
    with pytest.raises(SettingsError, match="CLIENT_PROCESSES=2: this machine has a GPU"):
        evaluation_processes(load_settings(given), given, 3, tiny_model, None)


class Together(ToyLearner):
    def fit_together(self, task, client_ids, load_shard, on_status):
        return [self.fit(task, load_shard(client_id), on_status) for client_id in client_ids]


def test_other_processes_and_learners_of_ones_own_stay_as_they_are(tmp_path, monkeypatch):
    places = {"data_dir": tmp_path / "data", "log_dir": tmp_path / "logs"}
    with pytest.raises(SettingsError, match="CLIENT_PROCESSES=2: the clients are other processes"):
        fccl.Orchestrator(client_processes=2, exchange_dir=tmp_path / "exchange", **places)
    for learner in (ToyLearner(), Together()):
        with pytest.raises(SettingsError, match=f"CLIENT_PROCESSES=2: {type(learner).__name__}"):
            fccl.FederatedRun(learner=learner, client_processes=2, **places)
    monkeypatch.setenv("CLIENT_PROCESSES", "2")
    assert fccl.FederatedRun(learner=Together(), **places).settings.client_processes == 1
    assert fccl.FederatedRun(**places).settings.client_processes == 2


def test_heartbeats_of_steps_are_paced_and_all_others_pass():
    times, heard = iter([0.0, 0.0, 0.05, 0.1, 0.1, 0.15]), []
    hear = paced(heard.append, lambda: next(times))
    for state, step in [("training", 0), ("training", 1), ("training", 2), ("training", 3), ("done", 4)]:
        hear(ClientStatus(client_id=0, state=state, run_id="run", round=0, phase="sft", step=step, steps=4))
    assert [status.step for status in heard] == [0, 3, 4]


# --- whole runs


@dataclass(frozen=True)
class Place:
    folder: Path
    model: Path

    def run(self, name, resume=False, **changes):
        own = changes if resume else SMALL | {"model_name": str(self.model), "max_length": 128, "threads": 1} | changes
        return fccl.FederatedRun(resume=resume, data_dir=self.folder / "data", log_dir=self.folder / name, **own)


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model_path):
    return Place(tmp_path_factory.mktemp("side-by-side"), tiny_model_path)


@pytest.mark.slow
def test_processes_change_no_byte_and_a_run_goes_on_with_another_number_of_them(place):
    """The first round in this process, the second in two others."""
    whole = place.run("alone", client_processes=1)
    expected, left = whole.train(), place.run("left", client_processes=1)
    for _ in left:
        break
    told = []
    resumed = fccl.FederatedRun(
        resume=True, data_dir=place.folder / "data", log_dir=place.folder / "left", client_processes=2, tell=told.append
    )
    assert resumed.settings.client_processes == 2
    assert resumed.train().sha256 == expected.sha256
    assert "Clients train in 2 processes, 1 thread each." in told
    records = [read_records(LogPaths(run.log_dir).progress, RoundRecord) for run in (whole, resumed)]
    assert [record.weights for record in records[0]] == [record.weights for record in records[1]]
    pids = {read_value(LogPaths(resumed.log_dir).status(client), ClientStatus).pid for client in range(3)}
    assert len(pids) == 2
    assert os.getpid() not in pids
    for pid in pids:
        wait_until_gone(pid)


SCRIPT = """
import sys
import fccl
print("the script runs")
run = fccl.FederatedRun(client_processes=3, threads=1, data_dir="data", log_dir="logs", **{settings!r})
print(run.train().sha256)
"""


@pytest.mark.slow
def test_a_script_without_a_guard_runs_once_and_gives_the_same_bytes(place, tmp_path):
    settings = SMALL | {"model_name": str(place.model), "max_length": 128}
    (tmp_path / "script.py").write_text(SCRIPT.format(settings=settings))
    said = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True
    )
    expected = place.run("unguarded", client_processes=1).train().sha256
    assert said.stdout.decode().split("\n") == ["the script runs", expected, ""], said.stderr.decode()


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_and_goes_on_to_the_same_bytes(tmp_path):
    folders = {name: tmp_path / name for name in ("whole", "killed", "interrupted")}
    for folder in folders.values():
        folder.mkdir()
    arguments = ("run", *short_run(2), "--client-processes")
    status, output = finished(start(folders["whole"], *arguments, "1"))
    assert status == 0, output
    for name, blow, left in (("killed", signal.SIGKILL, -signal.SIGKILL), ("interrupted", signal.SIGINT, 130)):
        run = start(folders[name], *arguments, "3")
        once_begun(run, folders[name], 3)
        pids = {read_value(path, ClientStatus).pid for path in (folders[name] / "logs").glob("status_*.json")}
        run.send_signal(blow)
        assert finished(run)[0] == left
        for pid in pids:
            wait_until_gone(pid)
        status, output = finished(start(folders[name], "run", "--resume", "--client-processes", "2"))
        assert status == 0, output
        final = [(folders[each] / "logs" / "global_final.safetensors").read_bytes() for each in ("whole", name)]
        assert final[0] == final[1]
