"""Commands of the package as processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def start(folder, *arguments, **variables):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | variables
    return subprocess.Popen(
        [sys.executable, "-m", "fccl", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finished(process, seconds=300):
    """Its exit status and all it said."""
    output, _ = process.communicate(timeout=seconds)
    return process.returncode, output


def killed_within_round_2(run, rounds):
    """Killed once it has said that the first of so many rounds is complete."""
    for line in run.stdout:
        if line.startswith(f"round 1/{rounds}"):
            break
    time.sleep(0.5)  # somewhere inside round 2
    run.send_signal(signal.SIGKILL)
    assert finished(run)[0] == -signal.SIGKILL, "it was done before it was killed"
