"""Scripts with trainers of the pinned TRL, as processes of their own beside built-in clients."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fccl.apps.main import main
from fccl.paths import ExchangePaths, LogPaths
from fccl.records.run import ClientStatus, RoundRecord
from fccl.storage.reading import read_records, read_value
from tests.apps.commands import ROOT, finished, start

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parent / "trl_client.py"
SIZES = ("--max-sft-examples", "60", "--max-va-examples", "40", "--validation-examples", "4", "--test-examples", "4")
RUN = (
    *SIZES,
    *("--num-clients", "4", "--fed-rounds", "1", "--verify-examples", "4", "--no-evaluate", "--threads", "1"),
    *("--client-timeout-s", "600", "--heartbeat-stale-s", "300"),
)
PHASES = {2: "sft", 3: "va"}


def script(folder, number, keys=""):
    command = [sys.executable, str(SCRIPT), str(folder), str(number), PHASES[number], keys]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def killed_in_its_round(folder, number, keys):
    """A script that has begun with its round and is killed in the middle of it."""
    process, path = script(folder, number, keys), ExchangePaths(folder / "exchange").status(number)

    def is_training():
        status = read_value(path, ClientStatus)
        return status is not None and status.state == "training" and 0 < status.step < status.steps

    while not is_training():
        assert process.poll() is None, finished(process)[1]
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def whole_run(folder, keys="", kill=False):
    """The records of a run of two built-in clients, an SFT script and a DPO script, and its final adapter's hash."""
    folder.mkdir(exist_ok=True)
    assert main(["prepare", *SIZES, "--num-clients", "4", "--data-dir", str(folder / "data")]) == 0
    signed = ("--keys-dir", keys) if keys else ()
    run = start(folder, "orchestrator", *RUN, *signed)
    ours = [start(folder, "client", "--client-id", str(number), *signed) for number in (0, 1)]
    scripts = []
    for number in PHASES:
        if kill:
            killed_in_its_round(folder, number, keys)
        scripts.append(script(folder, number, keys))
    status, output = finished(run, 900)
    assert status == 0, output
    for process in (*ours, *scripts):
        status, said = finished(process)
        assert status == 0, said
    return read_records(LogPaths(folder / "logs").progress, RoundRecord), output


def test_scripts_take_part_in_their_phases_and_kills_change_no_byte(tmp_path):
    """Two built-in clients, an SFTTrainer and a DPOTrainer; then the same with keys, each script killed once."""
    records, said = whole_run(tmp_path / "whole")
    assert [(record.phase, record.clients, record.declined, record.excluded) for record in records] == [
        ("sft", (0, 1, 2), (3,), ()),
        ("va", (0, 1, 3), (2,), ()),
    ]
    assert "client 3: declines FedIT" in said
    assert "client 2: declines FedVA" in said
    assert not list(ExchangePaths(tmp_path / "whole" / "exchange").rejected.glob("*"))
    keys = str(tmp_path / "keys")
    assert main(["keys", "--num-clients", "4", "--keys-dir", keys]) == 0
    killed, _ = whole_run(tmp_path / "killed", keys, kill=True)
    assert [record.adapter_sha256 for record in killed] == [record.adapter_sha256 for record in records]
    assert [record.arrived for record in killed] == [record.arrived for record in records]
