"""Every script in examples/ runs as it stands, here with little data."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
LITTLE = {
    "MAX_SFT_EXAMPLES": "60",
    "MAX_VA_EXAMPLES": "30",
    "FED_ROUNDS": "1",
    "GEN_SAMPLES": "0",
    "BOOTSTRAP_SAMPLES": "100",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
}
SAID = {
    "federation.py": r"round 2 \(va\): validation loss .*\nbase: perplexity .*\nSFT: perplexity .*\nFedVA: perplexity ",
    "own_rule.py": r"FCCL \(verified\), round 2 .*\n(halving loss, round \d .* weight of client 0 \d\.\d\d\n){2}",
    "own_data.py": r"geography +\d+ +\d+ +\d+\n(.*\n)+Final adapter: \d+ tensors",
    "own_process.py": r"round 1: updates of \(0, 1\), excluded none\nround 2: updates of \(0, 1\), excluded none\n",
    "flower_app.py": r"slope 1\.\d\d, offset \d\.\d\d; weights 0\.\d\d 0\.\d\d 0\.\d\d\n",
    "own_trainer.py": r"round 1 \(sft\): loss \d\.\d{3}\n(.*\n)*round 2 \(va\): loss \d\.\d{3}\n",
    "read_run.py": r"Weight of each client by round:\n.*\n.*\n0 .*\n1 .*",
}


@pytest.fixture(autouse=True)
def little_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in LITTLE.items():
        monkeypatch.setenv(name, value)


def said_by(name, capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.parametrize("name", ["federation.py", "own_rule.py", "own_data.py"])
def test_the_script_runs(name, capsys, monkeypatch):
    assert re.search(SAID[name], said_by(name, capsys, monkeypatch))


def test_a_finished_run_is_read(small_run, capsys, monkeypatch):
    assert re.search(SAID["read_run.py"], said_by("read_run.py", capsys, monkeypatch, str(small_run / "logs")))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["own_process.py", "own_trainer.py", "flower_app.py"])
def test_clients_in_processes_of_their_own_take_part(name):
    script = str(ROOT / "examples" / name)
    process = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=600, check=False)
    assert process.returncode == 0, process.stderr
    assert re.search(SAID[name], process.stdout)


def test_each_is_short_and_in_the_index():
    index = (ROOT / "examples" / "README.md").read_text()
    assert {script.name for script in SCRIPTS} == set(SAID)
    for script in SCRIPTS:
        assert len(script.read_text().splitlines()) < 60
        assert f"[{script.name}]({script.name})" in index
