"""One folder holds one run at a time, and a run keeps to the data that it began with."""

import shutil
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from fccl.adapters.adapter import load_adapter
from fccl.apps.console import plain_console
from fccl.apps.main import main
from fccl.config import load_settings
from fccl.data.in_use import data_in_use
from fccl.data.prepare import prepare
from fccl.data.shards import read_manifest
from fccl.errors import DIVERGED, LOWER_RATE, FederationError, StorageError, TrainingError
from fccl.federation.run_evaluation import own_data
from fccl.federation.run_folder import RunFolder
from fccl.library.narrow import data_spec, settled
from fccl.library.standing import standing
from fccl.model.loading import load_model
from fccl.paths import DataPaths, ExchangePaths, LogPaths
from fccl.records.journal import Journal
from fccl.records.run import RoundRecord, RunInfo
from fccl.storage.files import sha256_of
from fccl.storage.locks import exclusive
from fccl.storage.reading import read_records
from tests.apps.commands import LITTLE_DATA, finished, start

SMALL = (*LITTLE_DATA, "--fed-rounds", "2", "--no-evaluate")
LOGS = LogPaths(Path("logs"))


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    paths = DataPaths(tmp_path_factory.mktemp("prepared") / "data")
    prepare(data_spec(load_settings({"max_sft_examples": "300", "max_va_examples": "150"})), paths)
    return paths


@pytest.fixture
def data(prepared, tmp_path):
    """A small prepared folder."""
    return DataPaths(shutil.copytree(prepared.root, tmp_path / "data"))


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
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "exchange"] == [
        "run.lock"
    ]


def test_a_restarted_orchestrator_knows_a_run_whose_rule_takes_no_weights(data):
    settings = settled(load_settings({"aggregation": "median"}), print, {})
    folder = begun(settings, data)
    again = settled(load_settings({"aggregation": "median"}), print, {})
    assert standing(folder, again) == "unfinished"


def test_a_run_is_evaluated_on_its_own_data_alone(data, capsys):
    settings = load_settings({"num_clients": "3"})
    begun(settings, data)
    info = info_of(settings, data)
    assert own_data(data, info).files
    with open(data.server_split("test", "sft"), "a") as file:
        file.write("\n")
    with pytest.raises(StorageError, match="is not what it was when the data was prepared"):
        own_data(data, info)
    assert main(["prepare", "--seed", "7", *LITTLE_DATA]) == 0
    assert main(["evaluate"]) == 1
    assert (
        "error: the data in data/ is not what run run was made with: its test split may hold the run's training data"
        in capsys.readouterr().err
    )
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
    from fccl.model.base_model import base_path

    settings = load_settings({})
    begun(settings, data)
    assert main(["export", "base", "--base"]) == 0
    assert "Wrote base/: the base model as a plain model folder." in capsys.readouterr().out
    exported, own = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in ("base", base_path("builtin:micro"))
    )
    assert all(torch.equal(tensor, own[name]) for name, tensor in exported.items())
    assert main(["export", "both", "--base", "--merge"]) == 2
    assert not Path("both").exists()
    assert main(["export", "adapter"]) == 1
    assert "error: logs/global_final.safetensors is not there" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"null", b'{"run_id": 3}', b"\xff\x00"])
def test_a_damaged_record_of_a_run_is_named_as_what_it_is(data, capsys, content):
    begun(load_settings({}), data)
    LOGS.global_final.write_bytes(b"an adapter")
    kept = LOGS.run.read_bytes()
    LOGS.run.write_bytes(content)
    for command in (["evaluate"], ["export", "out"], ["run", "--resume"]):
        assert main(command) == 1
        assert "error: logs/run.json is damaged: it is not the record that a run writes" in capsys.readouterr().err
    LOGS.run.write_bytes(kept)
    LOGS.state.write_bytes(content)
    with pytest.raises(FederationError, match=r"^logs/state\.json is damaged"):
        RunFolder.at(LOGS.root).resume()


def test_an_evaluation_that_the_disk_refuses_is_on_the_screen(small_run, tmp_path, capsys):
    shutil.copytree(small_run, tmp_path, dirs_exist_ok=True)
    LOGS.evaluation_markdown.mkdir()
    capsys.readouterr()
    assert main(["evaluate", "--sft", "6", "--va", "6", "--gen-samples", "0"]) == 1
    captured = capsys.readouterr()
    assert "response perplexity" in captured.out
    assert "Written" not in captured.out
    assert "error: cannot write logs/evaluation.md: it is a folder" in captured.err


def test_data_that_is_in_use_is_not_prepared_anew_and_the_same_data_is_used_side_by_side(data, capsys):
    before = data.manifest.read_bytes()
    settings = load_settings({"max_sft_examples": "300", "max_va_examples": "150"})
    spec = data_spec(settings)
    with data_in_use(spec, data) as manifest, data_in_use(spec, data) as same:
        assert manifest == same
        for command in (["prepare"], ["run", *SMALL], ["orchestrator", *SMALL]):
            assert main([*command, "--seed", "7", *SMALL[:4]]) == 1
            said = capsys.readouterr().err
            assert (
                "error: the data in data/ is in use by another command, so it stays as it is\n  hint: use another "
                "folder (--data-dir)" in said
            )
        assert data.manifest.read_bytes() == before
        assert main(["prepare", *SMALL[:4]]) == 0
        assert "Data: data/ is ready" in capsys.readouterr().out
    assert main(["prepare", "--seed", "7", *SMALL[:4]]) == 0
    assert data.manifest.read_bytes() != before
    assert sorted(path.name for path in data.root.iterdir()) == [
        "clients",
        "data.lock",
        "manifest.json",
        "server",
        "topics_by_client.png",
    ]


def test_an_evaluation_is_not_written_into_another_run(data):
    settings = load_settings({"num_clients": "3"})
    folder = begun(settings, data)
    folder.require_here("run")
    folder.archive()
    LOGS.root.mkdir(exist_ok=True)
    folder.start(
        info_of(settings, data).model_copy(update={"run_id": "later"}),
        settings.round_plan(),
        load_model(settings.model_spec()).initial_adapter(0),
    )
    with pytest.raises(StorageError, match="logs no longer holds run run"):
        folder.require_here("run")


def test_nothing_is_cleared_away_before_everything_is_held(tmp_path, capsys):
    """`orchestrator --new` beside a run that holds the log folder: the exchange directory stays as it is."""
    paths = ExchangePaths(Path("exchange"))
    paths.root.mkdir()
    for path in (paths.phase(0), paths.task(0), paths.flag(1, 0), paths.status(1)):
        path.write_text("of the run that is at work")
    before = sorted(path.name for path in paths.root.iterdir())
    for new in ([], ["--new"]):
        with exclusive(LOGS.lock, "a run"):
            assert main(["orchestrator", *SMALL, *new]) == 1
        assert "error: another run is at work on logs already" in capsys.readouterr().err
        assert (
            sorted(path.name for path in paths.root.iterdir() if path.suffix != ".lock" and path.name != "bell")
            == before
        )
    assert main(["orchestrator", *SMALL, "--new", "--client-lora-r", "99"]) != 0
    assert (
        sorted(path.name for path in paths.root.iterdir() if path.suffix != ".lock" and path.name != "bell") == before
    )


def test_a_run_that_changed_while_a_command_began_is_left_alone(data):
    folder = begun(load_settings({"num_clients": "3"}), data)
    with (
        pytest.raises(FederationError, match="another command has changed the run in logs meanwhile"),
        folder.held(None),
    ):
        pass
    with folder.held(folder.info()):
        pass


@pytest.mark.slow
def test_clients_do_not_train_on_data_that_was_changed_while_they_ran(tmp_path):
    """Preparing is refused while the run is at work.

    Changed by hand, it stops the run, which goes on to the same bytes when the data is back.
    """
    whole, disturbed = tmp_path / "whole", tmp_path / "disturbed"
    for folder in (whole, disturbed):
        folder.mkdir()
    status, output = finished(start(whole, "run", *SMALL))
    assert status == 0, output
    run = after_its_first_round(start(disturbed, "run", *SMALL))
    settings = SMALL[: SMALL.index("--fed-rounds")]
    with stopped(run):
        status, output = finished(start(disturbed, "prepare", *settings, "--noisy-clients", "0,1,2"))
        assert (status, "is in use by another command" in output) == (1, True)
        for client in range(3):
            with open(disturbed / "data" / "clients" / f"client_{client}_sft.jsonl", "a") as file:
                file.write("\n")
    status, output = finished(run)
    assert status == 1, output
    assert "is not what it was when the data was prepared" in output
    assert finished(start(disturbed, "prepare", *settings))[0] == 0
    status, output = finished(start(disturbed, "run", "--resume"))
    assert status == 0, output
    ends = [load_adapter(folder / "logs" / "global_final.safetensors").sha256 for folder in (whole, disturbed)]
    assert ends[0] == ends[1]
    assert (
        len(read_records(disturbed / "logs" / "progress.jsonl", RoundRecord, lambda row: row.get("event") == "round"))
        == 4
    )


@pytest.mark.slow
@pytest.mark.parametrize("what", ["logs", "data"])
def test_a_run_whose_folder_is_removed_ends_with_one_line(tmp_path, what):
    run = after_its_first_round(start(tmp_path, "run", *SMALL))
    with stopped(run):
        shutil.rmtree(tmp_path / what)
    status, output = finished(run)
    assert status == 1, output
    assert output.count("error: ") == 1
    assert "Traceback" not in output


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
    from fccl.training.learner import GenericLearner

    def fail(error):
        def training(*_):
            raise error

        monkeypatch.setattr(GenericLearner, "fit", training)
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
