"""Commands of the package as processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

LITTLE_DATA = ("--max-sft-examples", "300", "--max-va-examples", "150")
PATIENT = ("--client-timeout-s", "300", "--heartbeat-stale-s", "300")


def short_run(rounds):
    """Arguments of a run of so many rounds a phase, without its evaluation."""
    return (*LITTLE_DATA, "--fed-rounds", str(rounds), "--no-evaluate", "--threads", "1")


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


def run_as_processes(folder, arguments, clients=({}, {}, {}), **variables):
    """An orchestrator and its clients, each with environment variables of its own; all end well."""
    started = [start(folder, "client", "--client-id", str(number), **own) for number, own in enumerate(clients)]
    status, output = finished(start(folder, "orchestrator", *arguments, *PATIENT, **variables))
    assert status == 0, output
    assert [finished(client)[0] for client in started] == [0] * len(clients)


def killed_within_round_2(run, rounds):
    """Killed once it has said that the first of so many rounds is complete."""
    for line in run.stdout:
        if line.startswith(f"round 1/{rounds}"):
            break
    time.sleep(0.5)  # somewhere inside round 2
    run.send_signal(signal.SIGKILL)
    assert finished(run)[0] == -signal.SIGKILL, "it was done before it was killed"
