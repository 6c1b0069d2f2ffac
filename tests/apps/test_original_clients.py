"""Peers of the original protocol as processes of their own (`tests/original_client.py`), beside clients of ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fccl.model.base_model import base_path
from fccl.paths import DataPaths, ExchangePaths, LogPaths
from fccl.records.run import ClientMetrics, RoundRecord
from fccl.storage.reading import read_records
from tests.apps.commands import finished, start

SCRIPT = Path(__file__).resolve().parent.parent / "original_client.py"
ROUNDS = 2
SETTINGS = (
    *(
        "--num-clients",
        "4",
        "--fed-rounds",
        str(ROUNDS),
        "--original-clients",
        "2,3",
        "--lora-targets",
        "c_attn",
        "--lora-r",
        "8",
    ),
    *(
        "--max-sft-examples",
        "40",
        "--max-va-examples",
        "30",
        "--validation-examples",
        "4",
        "--test-examples",
        "4",
        "--verify-examples",
        "4",
    ),
    *("--no-evaluate", "--client-timeout-s", "600", "--heartbeat-stale-s", "60", "--threads", "1"),
)


def start_original(folder, number):
    data, exchange = DataPaths(folder / "data"), ExchangePaths(folder / "exchange")
    arguments = (str(exchange.root), str(data.clients), str(number), base_path("builtin:micro"), "c_attn", "8")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)  # it sees nothing of this package
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_of_them_beside_two_of_ours_all_count_in_tworounds_of_each_phase(tmp_path):
    ours = [start(tmp_path, "client", "--client-id", str(number)) for number in (0, 1)]
    originals = [start_original(tmp_path, number) for number in (2, 3)]
    status, output = finished(start(tmp_path, "orchestrator", *SETTINGS), 900)
    assert status == 0, output
    for process in ours:
        assert finished(process)[0] == 0
    for process in originals:
        said, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        expected = [
            f"round {number} {phase}: 8 tensors, 0 unknown" for number, phase in enumerate(["sft", "sft", "va", "va"])
        ]
        assert said.splitlines() == expected, "it has read every round's adapter, and its model knows every name in it"
    logs = LogPaths(tmp_path / "logs")
    records = read_records(logs.progress, RoundRecord)
    assert [(record.phase, record.clients, record.excluded) for record in records] == [
        (phase, (0, 1, 2, 3), ()) for phase in ("sft", "sft", "va", "va")
    ]
    assert all(weight > 0 for record in records for weight in record.weights)
    metrics = read_records(logs.client_metrics, ClientMetrics)
    assert {(row.round, row.client_id) for row in metrics} == {
        (number, client) for number in range(2 * ROUNDS) for client in range(4)
    }
    assert all(row.update_norm > 0 for row in metrics)
    assert not list(ExchangePaths(tmp_path / "exchange").rejected.glob("*"))
