"""The fixed overhead of a round over Flower: sites that have nothing to compute, beside a stock Flower app.

    python benchmarks/bench_flower.py [--rounds 5] [--sites 3]        (make bench-flower, SITES=10)

One SuperLink and three SuperNodes on this host, and two apps on them in turn, with the same three numbers as a model.
*bridge*: FCCL's transport, whose ClientApp hands the task to a worker that is running. *stock*: Flower's FedAvg with a
ClientApp that imports torch and gives the numbers back. A round is timed at the ServerApp, from task to task; the first
is shown apart, since it waits for nodes and files that the others find. Then a third app, *stock bare*, whose ClientApp
imports no torch: what starting a process costs by itself.

Below, what the processes take: memory (proportional set size) at the end, and seconds of one core in a round of the
bridge. With another number of sites the bridge runs alone. `--superexec-poll` is how often a SuperExec looks for a
task, `--courier-poll` how often the ServerApp looks for answers: the two pollings that can be set.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fccl.testing.loopback import Loopback, loopback, until  # noqa: E402
from fccl.testing.processes import client_processes  # noqa: E402
from fccl.testing.toy import ToyLearner  # noqa: E402
from fccl.transports.flower.courier import POLL_S  # noqa: E402
from fccl.transports.flower.quiet import FAST  # noqa: E402

USUAL_SITES = 3
LONGEST_S = 60.0  # of a round, for each site: a busy machine's
POLLS = {"superexec": float(FAST["FLWR_SUPEREXEC_TASK_POLL_INTERVAL"]), "courier": POLL_S}  # seconds

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
sites = {sites}
poll = {poll}
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
    rounds, sites, poll = int(config["rounds"]), int(config["sites"]), float(config["poll"])
    times, fed = [time.time()], federation(sites, rounds, va_rounds=0, sft_rounds=rounds)
    spec = exchange_spec(sites, timeout_s=600.0, stale_s=600.0, quorum=sites)
    server, received = ExchangePaths(folder / "server"), folder / "received"
    with FlowerTransport(grid, server, spec, received, poll_s=poll, sites=folder / "sites.json") as transport:
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
    sites = int(context.run_config["sites"])
    strategy = Timed(fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites)
    arrays = ArrayRecord({"w": Array(np.zeros(3, np.float32))})
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=int(context.run_config["rounds"]))
    Path(str(context.run_config["times"])).write_text(json.dumps(strategy.times))
"""
APPS = {
    "bridge": (BRIDGE_CLIENT, BRIDGE_SERVER),
    "stock": (STOCK_CLIENT.format(torch="import torch"), STOCK_SERVER),
    "stock bare": (STOCK_CLIENT.format(torch=""), STOCK_SERVER),
}


@dataclass(frozen=True)
class Load:
    """What the processes of one name take: how many they are, bytes of memory, seconds of one core so far."""

    processes: int
    memory: int
    seconds: float


def write_app(folder: Path, name: str, times: Path, rounds: int, sites: int, poll_s: float) -> None:
    """The Flower app of one contestant."""
    client, server = APPS[name]
    package = folder / "bench_app"
    package.mkdir(parents=True)
    project = PROJECT.format(times=json.dumps(str(times)), rounds=rounds, sites=sites, poll=poll_s)
    (folder / "pyproject.toml").write_text(project)
    for module, text in {"__init__": "", "client": client, "server": server}.items():
        (package / f"{module}.py").write_text(text)


def timed(deployment: Loopback, name: str, rounds: int, sites: int, poll_s: float) -> list[float]:
    """Seconds of each round of one app."""
    place = deployment.folder / name.replace(" ", "_")
    times = place / "times.json"
    write_app(place / "app", name, times, rounds, sites, poll_s)
    deployment.call(place / "app", place / "home")
    until(times.exists, f"the end of {name}", LONGEST_S * sites * (rounds + 1))  # one more: the start of an app
    found = json.loads(times.read_text())
    return [after - before for before, after in pairwise(found)]


def load(session: int) -> Load:
    """What the processes of one session take. A process that has ended counts in the time of its parent."""
    memory, ticks, count = 0, 0, 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                count, ticks = count + 1, ticks + sum(map(int, fields[11:15]))
                found = re.search(r"^Pss:\s+(\d+) kB", (folder / "smaps_rollup").read_text(), re.MULTILINE)
                memory += 1024 * int(found[1]) if found else 0
    return Load(count, memory, ticks / os.sysconf("SC_CLK_TCK"))


def loads(deployment: Loopback) -> dict[str, Load]:
    """By name, of what runs in the deployment."""
    return {name: load(process.pid) for name, process in deployment.processes.items()}


@contextmanager
def deployed(sites: int, superexec_poll: float) -> Iterator[Loopback]:
    """The deployment, with a toy worker for each site."""
    with tempfile.TemporaryDirectory(prefix="fccl-bench-") as text, ExitStack() as held:
        folder = Path(text)
        places = {number: folder / f"site_{number}" for number in range(sites)}
        deployed_here = loopback(
            folder,
            places,
            PYTHONPATH=str(ROOT),
            OMP_NUM_THREADS="1",
            FLWR_SUPEREXEC_TASK_POLL_INTERVAL=str(superexec_poll),
        )
        deployment = held.enter_context(deployed_here)
        for number, place in places.items():
            held.enter_context(client_processes(place, {number: ToyLearner()}, grace_s=3600.0))
        yield deployment


def show_times(name: str, seconds: list[float]) -> None:
    """One line of the first table."""
    first, *others = seconds
    ordered = sorted(others or [first])
    row = (first, ordered[len(ordered) // 2], ordered[0], ordered[-1])
    print(f"{name:<12}" + "".join(f"{each:>8.1f}" for each in row), flush=True)


def show_loads(deployment: Loopback, before: dict[str, Load], rounds: int) -> None:
    """The second table: the SuperLink, and one site's SuperNode in the mean."""
    after = loads(deployment)
    print(f"\n{'processes of':<20}{'number':>8}{'MB':>8}{'core-seconds a round':>24}")
    nodes = [name for name in after if name.startswith("supernode")]
    for title, names in (("SuperLink, ServerApp", ["superlink"]), ("a SuperNode", nodes)):
        each, seconds = len(names), sum(after[name].seconds - before[name].seconds for name in names)
        memory, count = sum(after[name].memory for name in names), sum(after[name].processes for name in names)
        print(f"{title:<20}{count / each:>8.1f}{memory / each / 1e6:>8.0f}{seconds / each / rounds:>24.2f}")
    database = sum(path.stat().st_size for path in deployment.folder.glob("superlink.db*"))
    print(f"the SuperLink's database: {database / 1e6:.1f} MB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sites", type=int, default=USUAL_SITES)
    parser.add_argument("--superexec-poll", type=float, default=POLLS["superexec"], help="seconds")
    parser.add_argument("--courier-poll", type=float, default=POLLS["courier"], help="seconds")
    options = parser.parse_args()
    from flwr.supercore.version import package_version

    where = f"{options.sites} sites on this host, {os.cpu_count()} cores"
    print(f"Flower {package_version}, {where}; seconds a round")
    print(f"{'app':<12}{'first':>8}{'median':>8}{'least':>8}{'most':>8}")
    with deployed(options.sites, options.superexec_poll) as deployment:
        before = loads(deployment)
        show_times("bridge", timed(deployment, "bridge", options.rounds, options.sites, options.courier_poll))
        show_loads(deployment, before, options.rounds)
        for name in APPS if options.sites == USUAL_SITES else ():
            if name != "bridge":
                show_times(name, timed(deployment, name, options.rounds, options.sites, options.courier_poll))


if __name__ == "__main__":
    main()
