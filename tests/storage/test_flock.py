import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HIDDEN = "import sys; sys.modules['fcntl'] = None; from fccl.apps.main import main; sys.exit(main(sys.argv[1:]))"


def without_fcntl(folder, *arguments):
    """A command on a system without `fcntl`, as Windows is."""
    command = [sys.executable, "-c", HIDDEN, *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["prepare", "run"])
def test_a_system_without_file_locks_gets_one_line(tmp_path, command):
    done = without_fcntl(tmp_path, command)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: this system has no file locks of the kind that FCCL needs (fcntl): it runs on Linux and macOS",
        "  hint: on Windows use WSL 2 (`wsl --install`) or Docker",
    ]
    assert list(tmp_path.iterdir()) == []


def test_the_help_is_there_without_file_locks_too(tmp_path):
    done = without_fcntl(tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: fccl" in done.stdout
