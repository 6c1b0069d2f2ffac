"""One folder holds one run at a time, and a run keeps to the data that it began with."""

import io
import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from fccl.adapter import load_adapter
from fccl.apps import orchestrator
from fccl.apps.console import plain_console
from fccl.apps.evaluate import own_data
from fccl.apps.main import main
from fccl.apps.run import settled
from fccl.checkpoint import RunFolder
from fccl.config import load_settings
from fccl.data.prepare import prepare
from fccl.data.shards import read_manifest
from fccl.errors import DIVERGED, LOWER_RATE, StorageError, TrainingError
from fccl.files import sha256_of
from fccl.journal import Journal, read_records
from fccl.locks import exclusive
from fccl.model import load_model
from fccl.paths import DataPaths, LogPaths
from fccl.records import RoundRecord, RunInfo
from tests.apps.commands import finished, start

SMALL = ("--max-sft-examples", "300", "--max-va-examples", "150", "--fed-rounds", "2", "--no-evaluate")
LOGS = LogPaths(Path("logs"))


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path):
    """A small prepared folder."""
    from fccl.apps.prepare import data_spec

    paths = DataPaths(tmp_path / "data")
    prepare(data_spec(load_settings({"max_sft_examples": "300", "max_va_examples": "150"})), paths)
    return paths


def info_of(settings, data):
    values = {name: str(value) for name, value in settings.model_dump().items()}
    return RunInfo(run_id="run", created=1.0, settings=values, data_sha256=sha256_of(data.manifest), versions={})


def begun(settings, data):
    """A run that has begun with this data, and no more."""
    folder, model = RunFolder(LOGS, Journal(LOGS)), load_model(settings.model_spec())
    LOGS.root.mkdir()
    shutil.copy(data.manifest, LOGS.manifest)
    folder.start(info_of(settings, data), settings.round_plan(), model.initial_adapter(0))
    return folder


def after_its_first_round(run):
    for line in run.stdout:
        if line.startswith("round 1/4"):
            break
    return run


@contextmanager
def stopped(process):
    """So that it does not end before what happens meanwhile has happened."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def test_paths_are_printed_as_they_are(capsys):
    plain_console().print("Wrote out[/x]/ and a[red]b, :smile:", soft_wrap=True)
    assert capsys.readouterr().out == "Wrote out[/x]/ and a[red]b, :smile:\n"


@pytest.mark.parametrize("command", ["run", "orchestrator"])
def test_a_second_run_in_the_same_folder_is_refused_before_it_touches_anything(tmp_path, capsys, command):
    with exclusive(LOGS.lock, "a run"):
        assert main([command, *SMALL]) == 1
    assert "error: another run is at work on logs already (process" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "exchange"] == ["run.lock"]


def test_a_restarted_orchestrator_knows_a_run_whose_rule_takes_no_weights(data):
    settings = settled(load_settings({"aggregation": "median"}), Console(file=io.StringIO()))
    folder = begun(settings, data)
    assert orchestrator.standing(folder, settled(load_settings({"aggregation": "median"}), Console(file=io.StringIO()))) == "unfinished"


def test_a_run_is_evaluated_on_its_own_data_alone(data, capsys):
    settings = load_settings({"num_clients": "3"})
    begun(settings, data)
    info = info_of(settings, data)
    assert own_data(data, info).files
    with open(data.held_out("test", "sft"), "a") as file:
        file.write("\n")
    with pytest.raises(StorageError, match="is not what it was when the data was prepared"):
        own_data(data, info)
    assert main(["prepare", "--seed", "7", "--max-sft-examples", "300", "--max-va-examples", "150"]) == 0
    assert main(["evaluate"]) == 1
    assert "error: the data in data/ is not what run run was made with: its test split may hold the run's training data" in capsys.readouterr().err
    assert not LOGS.evaluation_json.exists()


def test_the_card_of_an_export_speaks_of_the_runs_data_wherever_that_is_now(data, capsys):
    settings = load_settings({"num_clients": "3"})
    begun(settings, data)
    load_model(settings.model_spec()).initial_adapter(0).save(LOGS.global_final)
    rows = read_manifest(data).sources[0].rows_read
    shutil.rmtree(data.root)
    assert main(["export", "out[/x]"]) == 0
    assert f"- builtin ({rows:,} rows)" in Path("out[/x]/README.md").read_text()
    assert "Wrote out[/x]/: the adapter in PEFT format." in capsys.readouterr().out


def test_the_base_model_is_exported_as_it_is(data, capsys):
    from fccl.base_model import base_path

    settings = load_settings({})
    begun(settings, data)
    assert main(["export", "base", "--base"]) == 0
    assert "Wrote base/: the base model as a plain model folder." in capsys.readouterr().out
    exported, own = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in ("base", base_path("builtin:micro")))
    assert all(torch.equal(tensor, own[name]) for name, tensor in exported.items())
    assert main(["export", "both", "--base", "--merge"]) == 2
    assert not Path("both").exists()
    assert main(["export", "adapter"]) == 1
    assert "error: logs/global_final.safetensors is not there" in capsys.readouterr().err


@pytest.mark.slow
def test_clients_do_not_train_on_data_that_was_prepared_while_they_ran(tmp_path):
    """The run stops, says why, and goes on to the same bytes when its data is back."""
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    for folder in (whole, disturbed):
        folder.mkdir()
    status, output = finished(start(whole, "run", *SMALL))
    assert status == 0, output
    run = after_its_first_round(start(disturbed, "run", *SMALL))
    settings = SMALL[: SMALL.index("--fed-rounds")]
    with stopped(run):
        assert finished(start(disturbed, "prepare", *settings, "--noisy-clients", "0,1,2"))[0] == 0
    status, output = finished(run)
    assert status == 1, output
    assert "is not what it was when the data was prepared" in output
    assert finished(start(disturbed, "prepare", *settings))[0] == 0
    status, output = finished(start(disturbed, "run", "--resume"))
    assert status == 0, output
    ends = [load_adapter(folder / "logs" / "global_final.safetensors").sha256 for folder in (whole, disturbed)]
    assert ends[0] == ends[1]
    assert len(read_records(disturbed / "logs" / "progress.jsonl", RoundRecord, lambda row: row.get("event") == "round")) == 4


@pytest.mark.slow
def test_of_two_runs_in_a_folder_the_first_ends_as_if_alone(tmp_path):
    first = after_its_first_round(start(tmp_path, "run", *SMALL))
    with stopped(first):
        status, output = finished(start(tmp_path, "run", *SMALL, "--sft-lr", "0.001"))
    assert status == 1, output
    assert "another run is at work on logs already" in output
    assert finished(first)[0] == 0
    assert not (tmp_path / "logs" / "runs").exists()


def test_a_run_that_diverged_advises_a_new_one_and_one_that_a_client_left_goes_on(monkeypatch, capsys):
    from fccl.training import learner

    def fail(error):
        def training(*_):
            raise error

        monkeypatch.setattr(learner, "_train", training)
        assert main(["run", *SMALL, "--num-clients", "1"]) == 1
        said = capsys.readouterr()
        return said.out.splitlines()[-1], said.err

    diverged = TrainingError(f"{DIVERGED}: the gradient is not finite at step 3", LOWER_RATE, resumable=False)
    last, errors = fail(diverged)
    assert last == "Stopped with 0 of 4 rounds complete."
    assert "client 0: training diverged: the gradient is not finite at step 3" in errors
    assert "lower learning rate" in errors
    assert "--resume" not in errors
    last, errors = fail(IndexError("index out of range in self"))
    assert last == "Stopped with 0 of 4 rounds complete. `fccl run --resume` goes on."
    assert "client 0: IndexError: index out of range in self" in errors
