"""Every script in examples/ runs as it stands, here with little data."""

import os
import re
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
    "read_run.py": r"Weight of each client by round:\n.*\n.*\n0 .*\n1 .*",
}


def run(script, folder, *arguments):
    process = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=folder,
        env={**os.environ, **LITTLE},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.parametrize(
    "script", [script for script in SCRIPTS if script.name != "read_run.py"], ids=lambda it: it.name
)
def test_the_script_runs(script, tmp_path):
    assert re.search(SAID[script.name], run(script, tmp_path))


def test_a_finished_run_is_read(small_run, tmp_path):
    assert re.search(SAID["read_run.py"], run(ROOT / "examples" / "read_run.py", tmp_path, str(small_run / "logs")))


def test_each_is_short_and_in_the_index():
    index = (ROOT / "examples" / "README.md").read_text()
    assert {script.name for script in SCRIPTS} == set(SAID)
    for script in SCRIPTS:
        assert len(script.read_text().splitlines()) < 60
        assert f"[{script.name}]({script.name})" in index
