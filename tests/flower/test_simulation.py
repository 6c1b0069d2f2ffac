"""Flower's own simulation: its ClientApps in Ray's processes, three sites with workers, the bytes of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.flower
ROOT = Path(__file__).resolve().parent.parent.parent

SIMULATION = """
import sys
from pathlib import Path
from flwr.simulation import run_simulation
from fccl.aggregation.rules import aggregation
from fccl.paths import ExchangePaths
from fccl.testing.processes import client_processes, exchange_spec
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.transports.flower.client_app import client_app
from fccl.transports.flower.server_app import server_app
from fccl.transports.flower.site import Site
from fccl.transports.flower.transport import FlowerTransport
from fccl.transports.in_process import InProcessTransport

folder = Path(sys.argv[1])
SPEC = exchange_spec(3, timeout_s=300.0, stale_s=300.0)  # Ray takes its time to start
fed = federation(3, rounds=2, aggregation=aggregation("scaffold"))

def site_of(context):
    number = context.node_config["partition-id"]
    return Site(ExchangePaths(folder / f"site_{number}"), number)

def serve(grid, config):
    with FlowerTransport(grid, ExchangePaths(folder / "server"), SPEC, folder / "received") as transport:
        *_, last = fed.run(START, transport)
        transport.finish(fed.run_id, fed.plan.total_rounds, last.state.adapter)
    *_, alone = fed.run(START, InProcessTransport(ToyLearner(), shard))
    print("same bytes:", last.state.adapter.to_bytes() == alone.state.adapter.to_bytes())

def main():
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": 1}}
    with (
        client_processes(folder / "site_0", {0: ToyLearner()}),
        client_processes(folder / "site_1", {1: ToyLearner()}),
        client_processes(folder / "site_2", {2: ToyLearner()}),
    ):
        run_simulation(server_app(serve), client_app(site_of), num_supernodes=3, backend_config=resources)

if __name__ == "__main__":
    main()
"""


def test_four_rounds_in_the_simulation_have_the_bytes_of_one_process(tmp_path: Path) -> None:
    """With SCAFFOLD, whose corrections and control variates travel too."""
    script = tmp_path / "simulation.py"
    script.write_text(SIMULATION)
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FLWR_HOME": str(tmp_path / "flwr")}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | quiet | own,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "same bytes: True" in done.stdout, done.stderr
