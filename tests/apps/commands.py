"""Commands of the package as processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from fccl.paths import LogPaths
from fccl.records.run import ClientStatus
from fccl.storage.reading import read_value
from tests.own_rules import HELD, HOLD

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


def killed_within_round_2(run, folder):
    """Killed once a client has begun with it. The rest of the run must take longer than it takes to see that: for
    shorter runs, `killed_while_held`.
    """
    begun(run, folder, 2)
    _kill(run)


def killed_while_held(run, folder):
    """Killed while its rule of `tests.own_rules` weighs the second round, and there it stays while `HOLD` exists."""
    wait_for(run, (folder / HELD).exists)
    _kill(run)
    (folder / HOLD).unlink()


def begun(run, folder, number):
    """Once a client of `fccl run` in this folder has begun with the round of this number, counted from 1."""
    wait_for(run, lambda: _newest_round(LogPaths(folder / "logs")) >= number - 1)


def wait_for(run, happened):
    """Until it has happened; it must, while the process lives."""
    while not happened():
        assert run.poll() is None, finished(run)[1]
        time.sleep(0.01)


def _newest_round(logs):
    """The latest round that any client is known to have begun; -1 before the first."""
    said = (read_value(path, ClientStatus) for path in logs.root.glob("status_*.json"))
    return max((status.round for status in said), default=-1)


def _kill(run):
    run.send_signal(signal.SIGKILL)
    assert finished(run)[0] == -signal.SIGKILL, "it was done before it was killed"
