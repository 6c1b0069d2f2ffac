"""Commands that write one file or folder, killed within their writes: nothing half-written stays, and the command
works when it is given again.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fccl.storage.temporary import is_temporary

ROOT = Path(__file__).resolve().parents[2]
KILLS = 4  # of a command, spread over its writes
# A command that dies at its n-th change of the disk, and says at its end how many there were.
DYING = """
import os, signal, sys
from fccl.apps.main import main

last, seen = int(sys.argv[1]), 0

def counted(real):
    def call(*arguments, **options):
        global seen
        seen += 1
        if seen == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)
    return call

for name in ("replace", "rename", "fsync"):
    setattr(os, name, counted(getattr(os, name)))
status = main(sys.argv[2:])
print(seen, file=sys.stderr)
sys.exit(status)
"""


def dying(folder, write, *command):
    """Its exit status, and the number of its writes if it came to its end."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(write), *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    return done.returncode, int(done.stderr.split()[-1]) if done.returncode == 0 else 0


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def remove(folder, name):
    for path in list(folder.rglob(name)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def killed_within_writes(folder, *command, written):
    """Kills the command within some of its writes; then it must write what it writes undisturbed."""
    status, writes = dying(folder, 0, *command)
    assert status == 0
    whole = files(folder)
    assert any(written in path.parts for path in whole)
    left = 0
    for write in range(writes, 0, -max(1, writes // KILLS)):
        remove(folder, written)
        assert dying(folder, write, *command)[0] == -signal.SIGKILL
        left += any(is_temporary(path.name) for path in folder.rglob("*"))
    assert left > 0, "no kill came within a write"
    remove(folder, written)
    assert dying(folder, 0, *command)[0] == 0
    assert files(folder).keys() == whole.keys()
    return whole


def test_a_compose_file(tmp_path):
    whole = killed_within_writes(tmp_path, "compose", written="docker-compose.yml")
    assert files(tmp_path) == whole


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "written"),
    [
        (
            ("evaluate", "--sft", "4", "--va", "4", "--gen-samples", "0", "--bootstrap-samples", "100"),
            "evaluation.json",
        ),
        (("report",), "report.html"),
        (("export", "mine"), "mine"),
    ],
    ids=lambda part: part[0] if isinstance(part, tuple) else "",
)
def test_what_a_run_ends_in(command, written, small_run, tmp_path):
    folder = shutil.copytree(small_run, tmp_path / "run")
    whole = killed_within_writes(folder, *command, written=written)
    if command[0] != "report":  # which says when it was made
        assert files(folder) == whole
