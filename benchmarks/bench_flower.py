"""The fixed overhead of a round over Flower: sites that have nothing to compute, beside a stock Flower app.

    python benchmarks/bench_flower.py [--rounds 5]        (make bench-flower)

One SuperLink and three SuperNodes on this host, and two apps on them in turn, with the same three numbers as a model.
*bridge*: FCCL's transport, whose ClientApp hands the task to a worker that is running. *stock*: Flower's FedAvg with a
ClientApp that imports torch and gives the numbers back. A round is timed at the ServerApp, from task to task; the first
is shown apart, since it waits for nodes and files that the others find. Then a third app, *stock bare*, whose ClientApp
imports no torch: what starting a process costs by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from fccl.testing.loopback import Loopback, loopback, until
from fccl.testing.processes import client_processes
from fccl.testing.toy import ToyLearner

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = (0, 1, 2)

PROJECT = """\
[project]
name = "bench"
version = "1.0.0"
description = "Timed rounds"
license = "MIT"
dependencies = []

[tool.flwr.app]
publisher = "fccl"

[tool.flwr.app.components]
serverapp = "bench_app.server:app"
clientapp = "bench_app.client:app"

[tool.flwr.app.config]
times = {times}
rounds = {rounds}
"""
BRIDGE_CLIENT = "from fccl.transports.flower.client_app import app\n\n__all__ = ['app']\n"
BRIDGE_SERVER = """\
import json, time
from pathlib import Path
from fccl.paths import ExchangePaths
from fccl.testing.processes import exchange_spec
from fccl.testing.toy import START, federation
from fccl.transports.flower.server_app import server_app
from fccl.transports.flower.transport import FlowerTransport

def serve(grid, config):
    folder = Path(str(config["times"])).parent
    times, fed = [time.time()], federation(3, int(config["rounds"]), va_rounds=0, sft_rounds=int(config["rounds"]))
    spec = exchange_spec(3, timeout_s=300.0, stale_s=120.0)
    with FlowerTransport(grid, ExchangePaths(folder / "server"), spec, folder / "received") as transport:
        for result in fed.run(START, transport):
            times.append(time.time())
        transport.finish(fed.run_id, fed.plan.total_rounds, result.state.adapter)
    Path(str(config["times"])).write_text(json.dumps(times))

app = server_app(serve)
"""
STOCK_CLIENT = """\
{torch}
from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
app = ClientApp()

@app.train()
def train(message, context):
    content = {{"arrays": message.content["arrays"], "metrics": MetricRecord({{"num-examples": 1}})}}
    return Message(RecordDict(content), reply_to=message)
"""
STOCK_SERVER = """\
import json, time
from pathlib import Path
import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
app = ServerApp()

class Timed(FedAvg):
    times = [time.time()]

    def aggregate_train(self, server_round, replies):
        self.times.append(time.time())
        return super().aggregate_train(server_round, replies)

@app.main()
def main(grid, context):
    strategy = Timed(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
    arrays = ArrayRecord({"w": Array(np.zeros(3, np.float32))})
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=int(context.run_config["rounds"]))
    Path(str(context.run_config["times"])).write_text(json.dumps(strategy.times))
"""
APPS = {
    "bridge": (BRIDGE_CLIENT, BRIDGE_SERVER),
    "stock": (STOCK_CLIENT.format(torch="import torch"), STOCK_SERVER),
    "stock bare": (STOCK_CLIENT.format(torch=""), STOCK_SERVER),
}


def write_app(folder: Path, name: str, times: Path, rounds: int) -> None:
    """The Flower app of one contestant."""
    client, server = APPS[name]
    package = folder / "bench_app"
    package.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PROJECT.format(times=json.dumps(str(times)), rounds=rounds))
    for module, text in {"__init__": "", "client": client, "server": server}.items():
        (package / f"{module}.py").write_text(text)


def timed(deployment: Loopback, name: str, rounds: int) -> list[float]:
    """Seconds of each round of one app."""
    place = deployment.folder / name.replace(" ", "_")
    times = place / "times.json"
    write_app(place / "app", name, times, rounds)
    home = place / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "{deployment.address}"\ninsecure = true\n'
    )
    command = [str(Path(sys.executable).parent / "flwr"), "run", str(place / "app"), "here"]
    environment = deployment.variables | {"FLWR_HOME": str(home)}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)
    until(times.exists, f"the end of {name}", 120.0 * rounds)
    found = json.loads(times.read_text())
    return [after - before for before, after in pairwise(found)]


@contextmanager
def deployed() -> Iterator[Loopback]:
    """The deployment, with a worker for each site."""
    with tempfile.TemporaryDirectory(prefix="fccl-bench-") as text:
        folder = Path(text)
        sites = {number: folder / f"site_{number}" for number in CLIENTS}
        own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with loopback(folder, sites, **own) as deployment:
            yield deployment


@contextmanager
def workers(folder: Path) -> Iterator[None]:
    """Toy workers of the three sites."""
    with (
        client_processes(folder / "site_0", {0: ToyLearner()}, grace_s=600.0),
        client_processes(folder / "site_1", {1: ToyLearner()}, grace_s=600.0),
        client_processes(folder / "site_2", {2: ToyLearner()}, grace_s=600.0),
    ):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    from flwr.supercore.version import package_version

    print(f"Flower {package_version}, three sites on this host, {os.cpu_count()} cores; seconds a round")
    print(f"{'app':<12}{'first':>8}{'median':>8}{'least':>8}{'most':>8}")
    with deployed() as deployment, workers(deployment.folder):
        for name in APPS:
            first, *others = timed(deployment, name, rounds)
            ordered = sorted(others)
            median = ordered[len(ordered) // 2]
            row = (first, median, ordered[0], ordered[-1])
            print(f"{name:<12}" + "".join(f"{seconds:>8.1f}" for seconds in row), flush=True)


if __name__ == "__main__":
    main()
