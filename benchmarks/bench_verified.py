"""What verified contribution costs: seconds of verification and of training per round, at the quickstart's defaults.

    python benchmarks/bench_verified.py            # or any settings of `fccl run`, such as --num-clients 8
    --noisy-clients 0,1,2

Runs a federation with CONTRIBUTION_SOURCE=verified in a folder of its own and reads what its records say.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fccl.paths import LogPaths  # noqa: E402
from fccl.records.run import RoundRecord, Verification  # noqa: E402
from fccl.storage.reading import read_records  # noqa: E402

LIMIT = 0.10  # of the training time of a phase


def main(arguments: Sequence[str]) -> int:
    """Print the table. Returns 1 when a phase's verification takes more than `LIMIT` of its training."""
    with tempfile.TemporaryDirectory() as folder:
        records = run(Path(folder), arguments)
    print(
        "| round | phase | examples | passes | verification, s | training, s | ratio "
        "|\n|---:|---|---:|---|---:|---:|---:|"
    )
    for record in records:
        print(line(record, verification_of(record)))
    shares = {phase: share([record for record in records if record.phase == phase]) for phase in ("sft", "va")}
    print("\n" + "; ".join(f"{phase}: {ratio:.1%} of the training time" for phase, ratio in shares.items()))
    return int(max(shares.values()) > LIMIT)


def run(folder: Path, arguments: Sequence[str]) -> list[RoundRecord]:
    """The records of a whole run."""
    command = [sys.executable, "-m", "fccl", "run", "--contribution-source", "verified", "--no-evaluate", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return read_records(LogPaths(folder / "logs").progress, RoundRecord, lambda row: row.get("event") == "round")


def verification_of(record: RoundRecord) -> Verification:
    """What the server found. Raises `ValueError` for a record without it."""
    if record.verification is None:
        raise ValueError(f"round {record.round} was not verified")
    return record.verification


def line(record: RoundRecord, found: Verification) -> str:
    """One row of the table. A step that was the last one allowed is looked at without its gradient."""
    trained, passes = training(record), len(found.path)
    return (
        f"| {record.round} | {record.phase} | {found.examples} | {passes} | {found.seconds:.2f} | {trained:.2f} | "
        f"{found.seconds / trained:.1%} |"
    )


def training(record: RoundRecord) -> float:
    """Seconds of local training in a round, all clients together: in one process they train one after the other."""
    return sum(said.seconds for said in record.contributions)


def share(records: Sequence[RoundRecord]) -> float:
    """Verification over training, as means over a phase's rounds."""
    return mean(verification_of(record).seconds for record in records) / mean(map(training, records))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
