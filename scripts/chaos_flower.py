"""Kill the processes of a federation over Flower at random moments, start them again, and compare the result.

    python scripts/chaos_flower.py [--kills 12] [--seed 0]        (make chaos-flower)

A SuperLink with its database, a SuperExec, three SuperNodes and three workers on this host, and `fccl flower run` with
the built-in model. Killed are the SuperLink, the SuperExec with the ServerApp, SuperNodes, workers and the command
itself, each by SIGKILL with all that it has started. Prints kills, rounds, and whether all is identical with what
`fccl run` makes; exit status 0 when it is.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fccl.paths import LogPaths  # noqa: E402
from fccl.records.run import RoundRecord  # noqa: E402
from fccl.storage.reading import read_records  # noqa: E402
from fccl.testing.loopback import Loopback  # noqa: E402
from scripts.chaos import CLIENTS, PATIENCE, SETTINGS, Outcome, environment, fccl, report  # noqa: E402

PAUSE_S = (3.0, 20.0)  # between two kills
AGAIN_S = 10.0  # before the command is called again: the ServerApp of its last call may still be at work
DEADLINE_S = 2400.0


@dataclass
class Federation:
    """The processes of one deployment, each with the way to start it."""

    deployment: Loopback

    @property
    def starts(self) -> dict[str, Callable[[], object]]:
        """By name, in the order in which they are started first. `run` is the command."""
        nodes = {f"supernode_{number}": self._node(number) for number in range(CLIENTS)}
        workers = {f"client_{number}": self._worker(number) for number in range(CLIENTS)}
        servers = {"superlink": self.deployment.super_link, "superexec": self.deployment.super_exec}
        return {**servers, **nodes, **workers, "run": self._command}

    def begin(self) -> None:
        """Start all."""
        for start in self.starts.values():
            start()

    def again(self, name: str) -> None:
        """Kill a process, and start it again."""
        self.deployment.kill(name)
        self.starts[name]()

    def _site(self, number: int) -> Path:
        return self.deployment.folder / f"site_{number}"

    def _node(self, number: int) -> Callable[[], object]:
        return lambda: self.deployment.super_node(number, self._site(number))

    def _worker(self, number: int) -> Callable[[], object]:
        where = ("--exchange-dir", str(self._site(number)), "--state-dir", f"state_{number}")
        command = fccl("client", "--client-id", str(number), *where)
        return lambda: self.deployment.start(f"client_{number}", command)

    def _command(self) -> object:
        command = fccl("flower", "run", "--superlink", self.deployment.address, *SETTINGS, *PATIENCE)
        return self.deployment.start("run", command)


def disturb(federation: Federation, kills: int, draw: random.Random) -> Outcome:
    """Kill and start again until the command has ended well; a call that a kill has cut short is made again."""
    outcome = Outcome(dict.fromkeys(federation.starts, 0))
    end, running = time.monotonic() + DEADLINE_S, federation.deployment.processes
    while running["run"].poll() != 0:
        if time.monotonic() > end:
            outcome.trouble.append("not finished in time")
            break
        if running["run"].poll() is not None:
            time.sleep(AGAIN_S)
            federation.again("run")
        elif sum(outcome.kills.values()) < kills:
            time.sleep(draw.uniform(*PAUSE_S))
            victim = draw.choice(sorted(name for name in running if running[name].poll() is None))
            outcome.kills[victim] += 1
            federation.again(victim)
        else:
            time.sleep(0.5)
    return outcome


def chaos(folder: Path, kills: int, draw: random.Random) -> bool:
    """One federation, disturbed, beside `fccl run` with the same settings. True when they are the same."""
    alone = fccl("run", *SETTINGS, "--log-dir", "undisturbed")
    subprocess.run(alone, cwd=folder, env=environment(), check=True, capture_output=True)
    undisturbed = LogPaths(folder / "undisturbed")
    expected = [(record.round, record.adapter_sha256) for record in read_records(undisturbed.progress, RoundRecord)]
    deployment = Loopback(folder, {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, "process")
    try:
        federation = Federation(deployment)
        federation.begin()
        outcome = disturb(federation, kills, draw)
    finally:
        deployment.end()
    return report("flower", outcome, LogPaths(folder / "logs"), expected, undisturbed.global_final.read_bytes())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument(
        "--seed", type=int, default=0, help="of the moments and victims; the operating system adds its own chance"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that nothing is left running
    with tempfile.TemporaryDirectory(prefix="fccl-chaos-") as name:
        good = chaos(Path(name), options.kills, random.Random(options.seed))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
