"""The shares of a round with verified contribution: training, verification, validation and all else, in processor time.

    python benchmarks/bench_verified.py [--beside CHECKOUT] [--runs 1] [settings of `fccl run`, such as --num-clients 8]

Runs the quickstart with CONTRIBUTION_SOURCE=verified in a process and a folder of its own. With `--beside` another
checkout of this project runs in turn with this one, and both tables are printed. A share is of the clients' training,
all of them together: in one process they train one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fccl.paths import LogPaths  # noqa: E402
from fccl.records.run import RoundRecord, Verification  # noqa: E402
from fccl.storage.reading import read_records  # noqa: E402

LIMIT = 0.10  # of the training time of a phase
# A whole `fccl run` whose clock is the process's own, so that what else the machine does is not counted.
RUN = """
import json, sys, time
time.monotonic = time.process_time
from fccl.evaluation.validation import Validator
validate, taken = Validator.__call__, {}
def timed(split, phase, adapter, reference):
    started = time.process_time()
    found = validate(split, phase, adapter, reference)
    taken[adapter.sha256] = taken.get(adapter.sha256, 0.0) + time.process_time() - started
    return found
Validator.__call__ = timed
from fccl.apps.main import main
status = main(sys.argv[1:])
open("validation.json", "w").write(json.dumps(taken))
sys.exit(status)
"""


@dataclass(frozen=True)
class Shares:
    """One round in seconds of processor time."""

    phase: str
    passes: int
    training: float
    verification: float
    validation: float
    rest: float


def main(arguments: Sequence[str]) -> int:
    """Print the tables. Returns 1 when this checkout's verification takes more than `LIMIT` of a phase's training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--beside", type=Path, help="another checkout, which runs in turn with this one")
    parser.add_argument("--runs", type=int, default=1, help="runs of each, one after the other")
    options, settings = parser.parse_known_args(arguments)
    roots = [ROOT, *([options.beside] if options.beside else [])]
    found: dict[Path, list[Shares]] = {root: [] for root in roots}
    for _ in range(options.runs):
        for root in roots:
            found[root] += run(root.resolve(), settings)
    for root in roots:
        print(f"\n{root}\n{table(found[root])}", flush=True)
    return int(max(share(found[ROOT], phase, "verification") for phase in ("sft", "va")) > LIMIT)


def run(root: Path, settings: Sequence[str]) -> list[Shares]:
    """The rounds of a whole run of the checkout in `root`."""
    command = ["run", "--contribution-source", "verified", "--no-evaluate", *settings]
    with tempfile.TemporaryDirectory() as name:
        # one client after the other: the shares are of a round's seconds; an older checkout does not read the variable
        environment = os.environ | {"PYTHONPATH": str(root), "CLIENT_PROCESSES": "1"}
        subprocess.run(
            [sys.executable, "-c", RUN, *command], cwd=name, env=environment, check=True, stdout=subprocess.DEVNULL
        )
        taken = json.loads(Path(name, "validation.json").read_text())  # by the hash of the adapter
        rounds = LogPaths(Path(name, "logs")).progress
        records = read_records(rounds, RoundRecord, lambda row: row.get("event") == "round")
    return [shares(record, taken[record.adapter_sha256]) for record in records]


def shares(record: RoundRecord, validation: float) -> Shares:
    """The parts of one round."""
    trained, found = sum(said.seconds for said in record.contributions), verification_of(record)
    rest = record.seconds - trained - found.seconds - validation
    return Shares(record.phase, len(found.path), trained, found.seconds, validation, rest)


def verification_of(record: RoundRecord) -> Verification:
    """The server's findings. Raises `ValueError` for a record without them."""
    if record.verification is None:
        raise ValueError(f"round {record.round} was not verified")
    return record.verification


def table(rounds: Sequence[Shares]) -> str:
    """A row a phase, in Markdown. A path's last point, where all steps were taken, is looked at without a gradient."""
    rows = ["| phase | rounds | points of the path | training, s | verification | validation | all else |"]
    rows.append("|---|---:|---:|---:|---:|---:|---:|")
    for phase in ("sft", "va"):
        mine = [each for each in rounds if each.phase == phase]
        parts = " | ".join(f"{share(rounds, phase, part):.1%}" for part in ("verification", "validation", "rest"))
        trained, points = mean(each.training for each in mine), mean(each.passes for each in mine)
        rows.append(f"| {phase} | {len(mine)} | {points:.1f} | {trained:.2f} | {parts} |")
    return "\n".join(rows)


def share(rounds: Sequence[Shares], phase: str, part: str) -> float:
    """A part over the training, as sums over a phase's rounds."""
    mine = [each for each in rounds if each.phase == phase]
    whole: float = sum(getattr(each, part) for each in mine) / sum(each.training for each in mine)
    return whole


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
