"""`fccl run --track`: a real run, killed and resumed, in a real tracker."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fccl.apps.main import main
from fccl.paths import LogPaths
from fccl.records.run import RoundRecord
from fccl.storage.reading import read_records
from tests.apps.commands import LITTLE_DATA

ROOT = Path(__file__).resolve().parent.parent.parent
SHORT = (
    *LITTLE_DATA,
    "--test-examples",
    "20",
    "--fed-rounds",
    "2",
    "--threads",
    "1",
    "--gen-samples",
    "1",
)


def test_a_tracker_that_is_not_installed_ends_the_command_before_it_does_anything(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert main(["run", "--track", "wandb"]) == 2
    assert (
        capsys.readouterr().err
        == 'error: TRACK=wandb needs wandb, which is not installed\n  hint: pip install "fccl[wandb]"\n'
    )
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_nobody_knows_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--track", "paper"]) == 2
    assert capsys.readouterr().err == "error: TRACK=paper: allowed is one of none, tensorboard, mlflow, wandb\n"


def start(folder, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fccl", "run", *arguments]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_is_in_the_tracker_once(tmp_path):
    first = start(tmp_path, *SHORT, "--track", "tensorboard")
    for line in first.stdout:
        if line.startswith("round 2"):
            break
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    second = start(tmp_path, "--resume", "--track", "tensorboard")
    output, _ = second.communicate(timeout=240)
    assert second.returncode == 0, output
    paths = LogPaths(tmp_path / "logs")
    records = read_records(paths.progress, RoundRecord, lambda row: row.get("event") == "round")
    events = EventAccumulator(str(paths.tensorboard), size_guidance={"scalars": 0})
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("round/effective_clients")] == [
        (record.round + 1, pytest.approx(record.effective_clients)) for record in records
    ]
    assert [event.step for event in events.Scalars("sft/validation_loss")] == [0, 1, 2]
    assert len(events.Scalars("evaluation_FedVA/perplexity")) == 1
