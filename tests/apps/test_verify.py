"""`fccl verify`: a page and a file for a partner; its status says whether anything is wrong."""

import json
import shutil

import pytest

from fccl.apps.main import main
from fccl.paths import LogPaths
from fccl.records.after import RunCheck
from fccl.records.run import RunInfo
from fccl.storage.reading import read_value


@pytest.fixture(scope="module")
def logs(small_run, tmp_path_factory):
    """A copy of a finished run, without its data: who checks it need not have them."""
    folder = tmp_path_factory.mktemp("handed-over") / "logs"
    shutil.copytree(small_run / "logs", folder)
    return LogPaths(folder)


def test_a_sound_run_is_found_sound_without_its_data(logs, tmp_path, capsys):
    out = tmp_path / "for-the-partner"
    assert main(["verify", "--log-dir", str(logs.root), "--out", str(out)]) == 0
    found = read_value(out / "verify.json", RunCheck)
    assert found.sound
    failed = [each for each in found.findings if each.outcome == "failed"]
    assert failed == []
    assert {each.name for each in found.findings if each.outcome == "ok"} >= {
        *("round 1", "round 2", "seal", "manifest", "PEFT")
    }
    page = (out / "verify.md").read_text()
    assert found.adapter_sha256 in page
    assert "nothing was found wrong" in page
    assert "nothing was found wrong" in capsys.readouterr().out


def test_it_writes_beside_the_runs_other_answers_where_nobody_says_where(logs):
    assert main(["verify", "--log-dir", str(logs.root)]) == 0
    run_id = read_value(logs.run, RunInfo).run_id
    assert json.loads(logs.after(run_id).check.read_text())["run_id"] == run_id


@pytest.mark.parametrize("name", ["global_final", "manifest", "progress"])
def test_a_changed_run_ends_with_1_and_the_page_says_what(logs, tmp_path, capsys, name):
    copy = LogPaths(tmp_path / "logs")
    shutil.copytree(logs.root, copy.root)
    path = getattr(copy, name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert main(["verify", "--log-dir", str(copy.root)]) == 1
    said = capsys.readouterr().out
    assert "failed" in said
    assert "not as it was made" in said


def test_the_adapter_that_other_programs_load_is_held_against_the_final_one_without_any_seal(logs, tmp_path, capsys):
    copy = LogPaths(tmp_path / "logs")
    shutil.copytree(logs.root, copy.root)
    copy.seal.unlink()
    assert main(["verify", "--log-dir", str(copy.root)]) == 0
    weights, config = (copy.adapter / name for name in ("adapter_model.safetensors", "adapter_config.json"))
    whole, scale = weights.read_bytes(), json.loads(config.read_text())
    for path, content in (
        (weights, whole[:-1] + bytes([whole[-1] ^ 1])),
        (config, json.dumps(scale | {"lora_alpha": 10 * scale["lora_alpha"]}).encode()),
        (config, b"{}"),
    ):
        before = path.read_bytes()
        path.write_bytes(content)
        capsys.readouterr()
        assert main(["verify", "--log-dir", str(copy.root)]) == 1
        assert "PEFT" in capsys.readouterr().out
        path.write_bytes(before)
    assert main(["verify", "--log-dir", str(copy.root)]) == 0


def test_a_changed_setting_is_found(logs, tmp_path):
    copy = LogPaths(tmp_path / "logs")
    shutil.copytree(logs.root, copy.root)
    info = read_value(copy.run, RunInfo)
    copy.seal.unlink()
    changed = info.model_copy(update={"settings": info.settings | {"sft_lr": "0.123"}})
    copy.run.write_text(changed.model_dump_json())
    assert main(["verify", "--log-dir", str(copy.root), "--out", str(tmp_path / "out")]) == 1
    findings = {each.name: each.outcome for each in read_value(tmp_path / "out" / "verify.json", RunCheck).findings}
    assert findings["settings"] == "failed"


def test_no_run_and_no_keys_are_one_line(logs, tmp_path, capsys):
    assert main(["verify", "--log-dir", str(tmp_path)]) == 1
    assert "holds no run to verify" in capsys.readouterr().err
    assert main(["verify", "--log-dir", str(logs.root), "--keys-dir", str(tmp_path)]) == 2
    assert "public.json is not there" in capsys.readouterr().err
