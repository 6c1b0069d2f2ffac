import os
import pty
import subprocess
import sys
from pathlib import Path

from fccl.apps.main import main as command

ROOT = Path(__file__).resolve().parents[2]


def on_a_terminal(*arguments, cwd):
    """What the command shows on a terminal, standard error and output together."""
    main, side = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "fccl", *arguments],
        cwd=cwd,
        stdin=side,
        stdout=side,
        stderr=side,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        os.close(side)
        shown = b""
        while True:
            try:
                part = os.read(main, 4096)
            except OSError:  # the other side is closed: that is how a terminal ends
                break
            shown += part
    os.close(main)
    return process.returncode, shown.decode()


def test_whoever_waits_for_the_libraries_is_told(tmp_path):
    status, shown = on_a_terminal("keys", "--num-clients", "1", "--keys-dir", "keys", cwd=tmp_path)
    assert status == 0
    assert "fccl keys: loading the libraries ...\r" in shown


def test_a_pipe_gets_no_such_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fccl", "keys", "--num-clients", "1", "--keys-dir", "keys"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "loading" not in done.stdout + done.stderr


def test_the_threads_of_a_command_sleep_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert command(["run", "--seed", "nonsense"]) == 2
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert command(["run", "--seed", "nonsense"]) == 2
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
