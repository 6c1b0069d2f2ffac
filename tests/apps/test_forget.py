"""`fccl forget`: the time first, then the run without the client, what is left of it, and its files gone."""

import shutil

import pytest

from fccl.adapters.adapter import load_adapter
from fccl.apps.main import main
from fccl.paths import LogPaths
from fccl.records.after import Forgotten
from fccl.records.run import RunInfo
from fccl.storage.reading import read_value


@pytest.fixture
def run(small_run, tmp_path):
    shutil.copytree(small_run, tmp_path / "run")
    return tmp_path / "run"


def fccl(run, command, *arguments):
    return main([command, "--log-dir", str(run / "logs"), "--data-dir", str(run / "data"), *arguments])


@pytest.mark.slow
def test_a_client_is_taken_out_and_only_its_files_go(run, capsys):
    logs = LogPaths(run / "logs")
    run_id = read_value(logs.run, RunInfo).run_id
    assert fccl(run, "forget", "--client", "1", "--predict") == 0
    first = capsys.readouterr().out
    assert "client 1 was there from round 1: all 2 rounds are trained anew without it, about" in first
    before = {path for path in logs.root.rglob("*") if path.is_file()}
    assert fccl(run, "forget", "--client", "1", "--yes") == 0
    said = " ".join(capsys.readouterr().out.split())
    folder = logs.after(run_id).forgotten(1)
    found = read_value(folder / "record.json", Forgotten)
    gone = before - {path for path in logs.root.rglob("*") if path.is_file()}
    assert {path.relative_to(logs.root).as_posix() for path in gone} == set(found.removed)
    assert all("_1_" in name or name == "status_1.json" for name in found.removed)
    assert all(name in said for name in (*found.removed, "global_final.safetensors"))
    assert found.adapter_sha256 == found.never_sha256 == load_adapter(folder / "adapter.safetensors").sha256
    assert found.adapter_sha256 != load_adapter(logs.global_final).sha256
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert {(each.model, each.phase) for each in found.left} == {
        (model, phase) for model in ("the run", "without the client") for phase in ("sft", "va")
    }
    assert main(["verify", "--log-dir", str(logs.root)]) == 0, "what is gone is said to be, and the rest is as it was"
    assert fccl(run, "replay", "--without-client", "1") == 0
    capsys.readouterr()
    for arguments in ((), ("--influence",)):
        assert fccl(run, "replay", *arguments) != 0
        assert "the update of client 1 is kept no more" in capsys.readouterr().err
    assert fccl(run, "forget", "--client", "1", "--yes") == 0
    assert set(read_value(folder / "record.json", Forgotten).removed) >= set(found.removed)
    assert main(["verify", "--log-dir", str(logs.root)]) == 0


def test_a_client_without_an_update_and_one_that_there_is_not_are_one_line(run, capsys):
    assert fccl(run, "forget", "--client", "9") == 2
    assert "the run has no client 9" in capsys.readouterr().err
    assert fccl(run, "forget") == 2
    assert "--client" in capsys.readouterr().err


def test_nothing_is_trained_or_removed_that_nobody_has_agreed_to(run, capsys, monkeypatch):
    before = {path: path.read_bytes() for path in (run / "logs").rglob("*") if path.is_file()}
    assert fccl(run, "forget", "--client", "1") == 2
    error = capsys.readouterr().err
    assert "of client 1 in" in error
    assert "there is no terminal to ask at" in error
    assert "--yes" in error
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    for answer in ("no", ""):
        monkeypatch.setattr("builtins.input", lambda question, answer=answer: answer)
        assert fccl(run, "forget", "--client", "1") == 2
        assert "nothing was trained or removed" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (run / "logs").rglob("*") if path.is_file()} == before
