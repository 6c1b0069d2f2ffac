"""So many nodes of Flower's simulation, each a site of a toy federation: seconds of a round, and memory.

    python benchmarks/bench_flower_nodes.py [--nodes 10,100,300] [--rounds 3]        (make bench-flower-nodes)

Every node is asked in every round, through the same courier and ClientApp as in a deployment. The ClientApp is its
site's worker too, and trains the toy learner: nothing is measured but the way there and back. Ray has one process for
the ClientApps of all nodes. *round* is the median, from task to task, without the first, in which nodes are asked whose
sites they are. *server* is what the ServerApp's process and the simulation's own threads take of a core in a round.
Memory is the proportional set size of all processes at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from flwr.app import Context
from flwr.serverapp import Grid
from flwr.simulation import run_simulation

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fccl.paths import ExchangePaths  # noqa: E402
from fccl.testing.processes import exchange_spec  # noqa: E402
from fccl.testing.toy import START, ToyLearner, federation, shard  # noqa: E402
from fccl.transports.exchange.client import ExchangeClient  # noqa: E402
from fccl.transports.exchange.heartbeat import Heartbeat  # noqa: E402
from fccl.transports.flower.client_app import client_app  # noqa: E402
from fccl.transports.flower.quiet import QUIET  # noqa: E402
from fccl.transports.flower.server_app import server_app  # noqa: E402
from fccl.transports.flower.site import Site  # noqa: E402
from fccl.transports.flower.transport import FlowerTransport  # noqa: E402

ONE_ACTOR: dict[str, dict[str, Any]] = {
    "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
    "init_args": {"num_cpus": 1},
}


class Figures(NamedTuple):
    """Of one federation: wall and core seconds of each round, bytes at its end."""

    seconds: list[float]
    cores: list[float]
    memory: int


class WorkingSite(Site):
    """A site that is its own worker."""

    def wait(self, files: Mapping[str, bytes], answer: str, wait_s: float, stale_s: float) -> dict[str, bytes]:
        """Train, and answer."""
        client = ExchangeClient(self.paths, self.client_id, ToyLearner(), shard)
        with Heartbeat(self.paths, self.client_id, 60.0) as heartbeat:
            task = client.newest()
            asked = client.begin(task, task.work, heartbeat) if task is not None and task.work is not None else None
            if asked is not None:
                client.answer(asked)
        return super().wait(files, answer, wait_s, stale_s)


def simulate(nodes: int, rounds: int, folder: Path) -> None:
    """One federation of so many nodes. Prints its figures."""

    def site_of(context: Context) -> Site:
        number = int(str(context.node_config["partition-id"]))
        return WorkingSite(ExchangePaths(folder / f"site_{number}"), number)

    def serve(grid: Grid, config: Mapping[str, object]) -> None:
        spec = exchange_spec(nodes, timeout_s=3600.0, stale_s=3600.0, quorum=nodes)
        fed = federation(nodes, rounds, sft_rounds=rounds, va_rounds=0)
        times, spent = [time.monotonic()], [time.process_time()]
        with FlowerTransport(grid, ExchangePaths(folder / "server"), spec, folder / "received") as transport:
            for result in fed.run(START, transport):
                assert len(result.record.clients) == nodes, result.record.excluded
                times.append(time.monotonic())
                spent.append(time.process_time())
        seconds, cores = ([after - before for before, after in pairwise(each)] for each in (times, spent))
        print(json.dumps(Figures(seconds, cores, memory(os.getpid()))._asdict()), flush=True)

    run_simulation(server_app(serve), client_app(site_of), num_supernodes=nodes, backend_config=ONE_ACTOR)


def memory(root: int) -> int:
    """The bytes of a process and all that have come from it."""
    parents, sizes = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            found = re.search(r"^Pss:\s+(\d+) kB", (entry / "smaps_rollup").read_text(), re.MULTILINE)
            sizes[int(entry.name)] = 1024 * int(found[1]) if found else 0
    family = {root}
    while more := {each for each, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(sizes.get(each, 0) for each in family)


def measured(nodes: int, rounds: int) -> Figures:
    """The figures of one federation, simulated in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="fccl-nodes-") as folder:
        command = [sys.executable, __file__, "--one", str(nodes), "--rounds", str(rounds), "--folder", folder]
        own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FLWR_HOME": f"{folder}/flwr"}
        done = subprocess.run(command, env={**os.environ, **QUIET, **own}, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
    if not lines:
        sys.exit(f"{nodes} nodes: no figures\n{done.stderr[-2000:]}")
    return Figures(**json.loads(lines[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="10,100,300", help="several, with commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        simulate(options.one, options.rounds, options.folder)
        return
    print(f"{'nodes':>6}{'first, s':>10}{'round, s':>10}{'server, core-s':>16}{'MB':>8}")
    for nodes in map(int, options.nodes.split(",")):
        found = measured(nodes, options.rounds)
        first, *others = found.seconds
        median = sorted(others)[len(others) // 2]
        cores = sorted(found.cores[1:])[len(others) // 2]
        print(f"{nodes:>6}{first:>10.1f}{median:>10.1f}{cores:>16.2f}{found.memory / 1e6:>8.0f}", flush=True)


if __name__ == "__main__":
    main()
