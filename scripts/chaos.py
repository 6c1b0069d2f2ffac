"""Kill orchestrator and clients at random moments, start them again, and compare the result with the undisturbed run's.

    python scripts/chaos.py [--kills 100] [--micro-kills 10] [--seed 0]

First a federation of many rounds with the toy learner of `fccl.testing`: real processes, the real loops, killed
every few hundredths of a second. Then a short one of `fccl orchestrator` and `fccl client` with the built-in model.
Every kill is SIGKILL. Prints kills, rounds, and whether all is identical; exit status 0 when it is.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fccl.paths import LogPaths  # noqa: E402
from fccl.records.run import RoundRecord  # noqa: E402
from fccl.storage.reading import read_records  # noqa: E402
from fccl.testing.processes import CONTEXT, client, orchestrator  # noqa: E402
from fccl.testing.toy import START, ToyLearner, federation, shard  # noqa: E402
from fccl.transports.in_process import InProcessTransport  # noqa: E402

CLIENTS = 3
SETTINGS = (
    "--max-sft-examples",
    "300",
    "--max-va-examples",
    "150",
    "--fed-rounds",
    "4",
    "--no-evaluate",
    "--threads",
    "1",
)
PATIENCE = (
    "--client-timeout-s",
    "3600",
    "--heartbeat-stale-s",
    "3600",
)  # nobody is given up: the result must be the undisturbed one
KEYS = ("--keys-dir", "keys")
DEADLINE_S = 900


class Process(Protocol):
    """What a forked process and a command have in common here."""

    def end(self) -> None: ...

    def exit_status(self) -> int | None: ...


@dataclass
class Forked:
    process: ForkServerProcess

    def end(self) -> None:
        self.process.kill()
        self.process.join()

    def exit_status(self) -> int | None:
        return self.process.exitcode


@dataclass
class Command:
    process: subprocess.Popen[bytes]

    def end(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def exit_status(self) -> int | None:
        return self.process.poll()


@dataclass
class Outcome:
    kills: dict[str, int] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)


def disturb(
    starts: dict[str, Callable[[], Process]], kills: int, pause_s: tuple[float, float], draw: random.Random
) -> Outcome:
    """Start everything; kill and restart at random until all have ended by themselves.

    The orchestrator is one of `starts`.
    """
    outcome = Outcome(dict.fromkeys(starts, 0))
    running = {name: start() for name, start in starts.items()}
    end = time.monotonic() + DEADLINE_S
    try:
        while running:
            time.sleep(draw.uniform(*pause_s) if sum(outcome.kills.values()) < kills else 0.05)
            for name in [name for name, process in running.items() if process.exit_status() is not None]:
                status = running.pop(name).exit_status()
                if status != 0:
                    outcome.trouble.append(f"{name} ended with {status}")
            if time.monotonic() > end or outcome.trouble:
                outcome.trouble.append("not finished in time" if not outcome.trouble else "stopped")
                break
            if running and "orchestrator" in running and sum(outcome.kills.values()) < kills:
                victim = draw.choice(sorted(running))
                running[victim].end()
                outcome.kills[victim] += 1
                running[victim] = starts[victim]()
    finally:
        for process in running.values():
            process.end()
    return outcome


def report(title: str, outcome: Outcome, logs: LogPaths, expected: Sequence[tuple[int, str]], final: bytes) -> bool:
    """Print what came out; true when every round is there once, none excluded a client, and all adapters are the
    undisturbed run's.
    """
    records = read_records(logs.progress, RoundRecord)
    found = [(record.round, record.adapter_sha256) for record in records]
    excluded = sum(len(record.excluded) for record in records)
    identical = (
        found == list(expected)
        and not excluded
        and logs.global_final.is_file()
        and logs.global_final.read_bytes() == final
    )
    each = ", ".join(f"{name} {count}" for name, count in outcome.kills.items())
    print(
        f"{title}: kills: {sum(outcome.kills.values())} ({each}); rounds: {len(found)} of {len(expected)}; "
        f"identical: {'yes' if identical else 'no'}"
    )
    for line in outcome.trouble:
        print(f"  {line}")
    return identical and not outcome.trouble


def chaos_toy(folder: Path, kills: int, draw: random.Random) -> bool:
    """Rounds enough for so many kills: one takes some hundredths of a second."""
    rounds = max(5, 2 * kills)
    fed = federation(CLIENTS, rounds)
    results = list(fed.run(START, InProcessTransport(ToyLearner(), shard)))
    expected = [(result.record.round, result.record.adapter_sha256) for result in results]
    root, logs = folder / "exchange", folder / "logs"
    starts = {"orchestrator": lambda: started(orchestrator, root, logs, CLIENTS, rounds)}
    for number in range(CLIENTS):
        starts[f"client {number}"] = partial(started, client, root, number)
    outcome = disturb(starts, kills, (0.0, 0.12), draw)
    return report("toy", outcome, LogPaths(logs), expected, results[-1].state.adapter.to_bytes())


def started(target: Callable[..., None], *arguments: object) -> Process:
    process = CONTEXT.Process(target=target, args=arguments, daemon=True)
    process.start()
    return Forked(process)


def chaos_micro(folder: Path, kills: int, draw: random.Random) -> bool:
    """The commands themselves, against `fccl run` with the same settings.

    Everybody signs, and clients remember what they have answered.
    """
    subprocess.run(
        fccl("keys", *KEYS, "--num-clients", str(CLIENTS)),
        cwd=folder,
        env=environment(),
        check=True,
        capture_output=True,
    )
    subprocess.run(
        fccl("run", *SETTINGS, "--log-dir", "undisturbed"),
        cwd=folder,
        env=environment(),
        check=True,
        capture_output=True,
    )
    undisturbed = LogPaths(folder / "undisturbed")
    expected = [(record.round, record.adapter_sha256) for record in read_records(undisturbed.progress, RoundRecord)]
    starts = {"orchestrator": lambda: command(folder, "orchestrator", *SETTINGS, *PATIENCE, *KEYS)}
    for number in range(CLIENTS):
        starts[f"client {number}"] = partial(command, folder, "client", "--client-id", str(number), *KEYS)
    outcome = disturb(starts, kills, (0.3, 4.5), draw)
    return report("micro", outcome, LogPaths(folder / "logs"), expected, undisturbed.global_final.read_bytes())


def command(folder: Path, *arguments: str) -> Process:
    with open(folder / "output.txt", "ab") as output:
        return Command(subprocess.Popen(fccl(*arguments), cwd=folder, env=environment(), stdout=output, stderr=output))


def fccl(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "fccl", *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of the toy federation")
    parser.add_argument(
        "--micro-kills", type=int, default=10, help="of the federation with the built-in model; 0 leaves it out"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the moments and victims; the operating system adds its own chance"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that nothing is left running
    good = True
    with tempfile.TemporaryDirectory() as name:
        good &= chaos_toy(Path(name), options.kills, random.Random(options.seed))
    if options.micro_kills:
        with tempfile.TemporaryDirectory() as name:
            good &= chaos_micro(Path(name), options.micro_kills, random.Random(options.seed))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
