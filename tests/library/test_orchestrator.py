"""`fccl.Orchestrator`: a script with a loop over it can be killed and simply started again."""

import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from itertools import islice

import pytest
import torch

import fccl
from fccl.adapters.adapter import Adapter
from fccl.errors import FederationError, SettingsError
from fccl.keys import create_keys
from fccl.paths import KeyPaths, LogPaths
from fccl.records.run import Contribution, RunEvent, TrainingReport
from fccl.storage.reading import read_records
from tests.apps.commands import ROOT, finished, killed_while_held, start
from tests.own_rules import HOLD, write

SMALL = {"max_sft_examples": 60, "max_va_examples": 30, "fed_rounds": 1, "threads": 1}
PATIENT = {"client_timeout_s": 300.0, "heartbeat_stale_s": 300.0}
CLIENTS = 3


@pytest.fixture(autouse=True)
def folder(small_run, tmp_path, monkeypatch):
    """With prepared data and no run."""
    shutil.copytree(small_run / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


class Nudge:
    """In the place of training: noise from the client's seed."""

    def fit(self, task, shard, on_status):
        draw = torch.Generator().manual_seed(task.client_seed(shard.client_id))
        tensors = {
            name: tensor + 0.01 * torch.randn(tensor.shape, generator=draw)
            for name, tensor in task.trained.tensors.items()
        }
        said = Contribution(avg_loss=1.0, num_samples=len(shard.of(task.phase)), seconds=0.0)
        report = TrainingReport(tokens=1, tokens_per_second=1.0, steps=1)
        return fccl.ClientUpdate(
            *(task.run_id, shard.client_id, task.round, task.phase, Adapter(tensors)), said, report
        )


@contextmanager
def clients():
    """Each in a thread; the run's end ends them."""
    made = [fccl.Client(client_id=number, learner=Nudge()) for number in range(CLIENTS)]
    threads = [threading.Thread(target=client.run) for client in made]
    for thread in threads:
        thread.start()
    yield
    for thread in threads:
        thread.join()


def events(folder):
    rows = read_records(LogPaths(folder / "logs").progress, RunEvent, lambda row: row.get("event") != "round")
    return [event.event for event in rows]


def final(folder, logs="logs"):
    return LogPaths(folder / logs).global_final.read_bytes()


def test_one_that_is_made_again_goes_on_and_a_finished_one_does_nothing(folder):
    with clients():
        assert [result.record.round for result in islice(fccl.Orchestrator(**SMALL, **PATIENT), 1)] == [0]
        again = fccl.Orchestrator(**SMALL, **PATIENT)
        assert [result.record.round for result in again] == [1]
    assert again.finished
    assert list(fccl.Orchestrator(**SMALL, **PATIENT)) == []
    assert events(folder) == ["started", "interrupted", "resumed", "finished"]
    fccl.FederatedRun(**SMALL, log_dir="whole", learner=Nudge()).train()
    assert final(folder) == final(folder, "whole")


SCRIPT = """
import fccl

for result in fccl.Orchestrator(**{settings}):
    pass
print("done")
"""


@pytest.mark.slow
def test_a_loop_that_is_killed_and_started_again_has_the_same_bytes(folder):
    """By a class of one's own, which each start of the script names."""
    settings = SMALL | {"fed_rounds": 2, "contribution_source": write(folder, "rules_of_a_loop") + ":Asks"}
    (folder / "loop.py").write_text(SCRIPT.format(settings=settings | PATIENT))

    def script():
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([sys.executable, "loop.py"], cwd=folder, env=environment, **piped)

    processes = [start(folder, "client", "--client-id", str(number)) for number in range(CLIENTS)]
    (folder / HOLD).touch()
    killed_while_held(script(), folder)
    status, output = finished(script())
    assert (status, output.splitlines()[-1]) == (0, "done"), output
    assert [finished(process)[0] for process in processes] == [0] * CLIENTS
    assert events(folder) == ["started", "resumed", "finished"]
    fccl.FederatedRun(**settings, log_dir="whole").train()
    assert final(folder) == final(folder, "whole")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "an empty KEYS_DIR: whoever writes to EXCHANGE_DIR would be as many clients as it likes"),
        ({"keys_dir": "keys", "aggregation": "scaffold"}, "AGGREGATION=scaffold: "),
    ],
)
def test_a_federation_that_is_open_needs_keys_and_a_rule_without_a_fixed_number_of_clients(folder, settings, reason):
    with pytest.raises(SettingsError, match=f"--open does not go with {reason}"):
        fccl.Orchestrator(open=True, **SMALL, **settings)


def test_a_client_leaves_from_python_only_what_is_there_to_leave(folder):
    create_keys(KeyPaths(folder / "keys"), CLIENTS)
    with pytest.raises(FederationError, match="no round is open"):
        fccl.Client(client_id=1, keys_dir="keys").leave()
    with pytest.raises(FederationError, match="the client has no key"):
        fccl.Client(client_id=1).leave()
