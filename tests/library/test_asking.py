"""`fccl.replay` and `fccl.verify` are the commands: the same records, the same refusals."""

import json
import shutil

import pytest

import fccl
from fccl.apps.main import main
from fccl.errors import FederationError, SettingsError
from fccl.paths import LogPaths
from fccl.records.after import Replay, RunCheck
from fccl.records.run import RunInfo
from fccl.storage.reading import read_value


@pytest.fixture(scope="module")
def run(small_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("asked") / "run"
    shutil.copytree(small_run, folder)
    return folder


def after(run):
    logs = LogPaths(run / "logs")
    return logs.after(read_value(logs.run, RunInfo).run_id)


def timeless(record):
    return record.model_copy(update={"time": 0.0})


def test_a_replay_is_the_command_s_to_the_byte_and_is_written_when_it_is_saved(run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    heard = []
    changes = {"contribution_mode": "fedavg", "aggregation": "fedavgm"}
    found = fccl.replay(run / "logs", without=[1], data_dir=run / "data", on_round=heard.append, **changes)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before
    assert tuple(heard) == found.record.rounds
    folder = found.save()
    mine = (folder / "adapter.safetensors").read_bytes()
    flags = [part for name, value in changes.items() for part in ("--" + name.replace("_", "-"), value)]
    there = ("--log-dir", str(run / "logs"), "--data-dir", str(run / "data"))
    assert main(["replay", "--without-client", "1", *flags, *there]) == 0
    (asked,) = after(run).root.glob("replay-*")
    assert asked == folder
    assert timeless(read_value(folder / "record.json", Replay)) == timeless(found.record)
    assert (folder / "adapter.safetensors").read_bytes() == mine


def test_a_check_is_the_command_s(run):
    assert main(["verify", "--log-dir", str(run / "logs")]) == 0
    assert timeless(fccl.verify(run / "logs")) == timeless(read_value(after(run).check, RunCheck))


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda logs: fccl.replay(logs, without=[9]), SettingsError, "the run has no client 9"),
        (lambda logs: fccl.replay(logs, seed=3), SettingsError, "fccl.replay does not read seed"),
        (lambda logs: fccl.replay(logs, client_lora_r="2"), SettingsError, "does not read client_lora_r"),
        (lambda logs: fccl.replay(logs, aggregation="scaffold"), SettingsError, "train in another way"),
        (lambda logs: fccl.replay(logs, retrain_from=7), SettingsError, "--retrain 8"),
        (lambda logs: fccl.replay(logs / "none"), FederationError, "no run"),
        (lambda logs: fccl.verify(logs / "none"), FederationError, "no run"),
        (lambda logs: fccl.verify(logs, keys_dir=logs / "none"), SettingsError, "public.json is not there"),
        (lambda logs: fccl.verify(logs, temperature=3), SettingsError, "unknown setting TEMPERATURE"),
    ],
)
def test_what_cannot_be_is_one_line(run, call, error, said):
    with pytest.raises(error, match=said):
        call(run / "logs")


def test_a_run_json_with_other_settings_of_data_is_found(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "logs" / "run.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({**info, "settings": {**info["settings"], "non_iid_alpha": "5.0"}}))
    found = fccl.verify(tmp_path / "run" / "logs")
    (manifest,) = [each for each in found.findings if each.name == "manifest"]
    assert (manifest.outcome, "NON_IID_ALPHA=0.5" in manifest.detail) == ("failed", True)
