"""`fccl evaluate` as a process of its own."""

import shutil
from pathlib import Path

import pytest

from tests.apps.commands import finished, start, wait_for

FEW = ("--sft", "6", "--va", "6", "--gen-samples", "1", "--gen-tokens", "4", "--bootstrap-samples", "100")


def has_a_child(process):
    """By the list that Linux keeps of a process's own processes."""
    return bool(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())


@pytest.mark.slow
def test_models_side_by_side_give_the_files_of_one_after_the_other(small_run, tmp_path):
    """As the command does on two cores, whatever the machine of the test has."""
    found = {}
    for processes in ("0", "1"):
        folder = shutil.copytree(small_run, tmp_path / processes)
        command = start(folder, "evaluate", *FEW, "--client-processes", processes, OMP_NUM_THREADS="2")
        if processes == "0":
            wait_for(command, lambda: has_a_child(command))  # noqa: B023 (called before the next one begins)
        status, output = finished(command)
        assert status == 0, output
        found[processes] = [(folder / "logs" / name).read_bytes() for name in ("evaluation.json", "evaluation.md")]
    assert found["0"] == found["1"]
