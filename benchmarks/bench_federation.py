"""A whole federation beside the same work done by other means: wall time and peak memory of each, and where it goes.

    python benchmarks/bench_federation.py [--sizes micro gpt2] [--clients 8] [--rounds 3] [--steps 10]
    FAST=1 python benchmarks/bench_federation.py        # two clients, one round, two steps: does it run at all

Rounds of SFT, then as many of DPO, on the same prepared shards, batches of 8, float32, LoRA r = 8. This system runs
with verified contributions and validates after every round; the loop around TRL and Flower's simulation around the
same trainer only train and average. `micro` is the built-in model with the quickstart's data; `gpt2` has the real shape
with random weights, texts of Alpaca's lengths, about `--steps` steps a client and round. Every contestant has a process
of its own, one after the other: nothing else should run meanwhile. What is not installed is named and left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

import fccl  # noqa: E402
from benchmarks.bench_training import Case  # noqa: E402
from benchmarks.federation_contestants import BATCH, Job  # noqa: E402
from fccl.display.words import duration  # noqa: E402
from fccl.model.base_model import base_path  # noqa: E402
from fccl.presets import BUILTIN_MODEL  # noqa: E402
from fccl.specs import PHASES, Phase  # noqa: E402

NAMES = {
    "auto": "this system, ENGINE=auto",
    "generic": "this system, ENGINE=generic",
    "trl": "a loop around TRL",
    "flower": "Flower's simulation around TRL",
}
NEEDS = {"auto": (), "generic": (), "trl": ("trl",), "flower": ("trl", "flwr", "ray")}
STEPS = 10  # of a client in a round
MICRO_STEPS = 220  # of all clients in a round of the built-in data: SFT about 320, DPO 118
SERVER_SHARE = 1.25  # of the clients' examples: the server's validation and test splits come on top
# Seconds of an SFT step and of a DPO step of eight on two cores, loading and scoring left out: what the time told first
# is made of. Those of `gpt2` are medians of a quiet `bench_training.py`.
STEP_S = {
    ("micro", "auto"): (0.02, 0.05),
    ("micro", "generic"): (0.03, 0.06),
    ("micro", "trl"): (0.1, 0.2),
    ("gpt2", "auto"): (2.8, 5.7),
    ("gpt2", "generic"): (2.8, 6.3),
    ("gpt2", "trl"): (12.0, 42.0),
}


@dataclass(frozen=True)
class Outcome:
    """A contestant's whole work."""

    name: str
    seconds: float
    peak: float  # bytes
    split: Mapping[str, float]  # seconds by what they were for, as far as it knows


def lacking(name: str) -> list[str]:
    """The packages that a contestant needs and that are not installed."""
    return [package for package in NEEDS[name] if importlib.util.find_spec(package) is None]


def expected_seconds(size: str, name: str, clients: int, rounds: int, steps: int, batch: int = BATCH) -> float:
    """A guess: Flower's is that of the loop which it stands around."""
    known = STEP_S[size, "trl" if name == "flower" else name]
    return sum(known) * clients * rounds * steps * batch / BATCH


def prepared(job: Job) -> Job:
    """The job, once the shards that all contestants read are there."""
    fccl.prepare(data_dir=job.data, num_clients=job.clients, **job.prepared)
    return job


def write_texts(folder: Path, phase: Phase, count: int) -> Path:
    """So many examples of Alpaca's lengths and one more, in the fields that the project reads."""
    path = folder / f"{phase}.jsonl"
    fields = {"completion": "response", "chosen": "preferred", "rejected": "dispreferred"}
    lines = []
    for number, example in enumerate(Case(phase, count, batch=1).examples()):
        row = {"instruction": f"{example['instruction']} {number}", "topic": "one"}
        row |= {ours: example[theirs].strip() for theirs, ours in fields.items() if theirs in example}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n")
    return path


def micro(folder: Path, options: argparse.Namespace) -> Job:
    """The built-in model and data; with FAST, so few examples that a client has about `--steps` steps."""
    name = str(base_path(BUILTIN_MODEL))
    most = round(SERVER_SHARE * options.clients * options.steps * options.batch) if options.fast else 0  # 0 is all
    settings = {"max_sft_examples": most, "max_va_examples": most}
    data = str(folder / "data")
    return job_of(options, BUILTIN_MODEL, name, data, settings, "all-linear")


def gpt2(folder: Path, options: argparse.Namespace) -> Job:
    """GPT-2's shape, random weights, `steps` steps a client and round."""
    script = ROOT / "scripts" / "make_random_gpt2.py"
    subprocess.run([sys.executable, str(script), str(folder / "gpt2")], check=True, stdout=subprocess.DEVNULL)
    count = round(SERVER_SHARE * options.clients * options.steps * options.batch)
    sft, va = (write_texts(folder, phase, count) for phase in PHASES)
    settings = {"sft_data": str(sft), "va_data": str(va), "topic_column": "topic", "non_iid_alpha": 1000.0}
    model, data = str(folder / "gpt2"), str(folder / "data")
    return job_of(options, model, model, data, settings, "c_attn")


def job_of(
    options: argparse.Namespace, model: str, folder: str, data: str, settings: dict[str, Any], targets: str
) -> Job:
    """The job of a size, its data prepared."""
    job = Job(model, folder, data, settings, options.clients, options.rounds, targets, options.threads, options.batch)
    return prepared(job)


def compete(name: str, job: Job, folder: Path) -> Outcome:
    """A contestant from its start to its end. Raises `SystemExit` with the end of what it said when it fails."""
    path = folder / "job.json"
    path.write_text(json.dumps(asdict(job)))
    command = [sys.executable, str(ROOT / "benchmarks" / "federation_contestants.py"), name, str(path)]
    environment = os.environ | {"OMP_NUM_THREADS": str(job.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Outcome(name, found["seconds"], found["peak"], found["split"])


def shares(outcome: Outcome) -> str:
    """Where the time went, the rest included; empty where the contestant does not know."""
    if not outcome.split:
        return ""
    parts = {**outcome.split, "the rest": outcome.seconds - sum(outcome.split.values())}
    return ", ".join(f"{what} {seconds / outcome.seconds:.0%}" for what, seconds in parts.items())


def table_of(size: str, outcomes: Sequence[Outcome]) -> Table:
    """Seconds, how many times the first one they are, memory, and what the time was for."""
    table = Table(title=f"{size}: the whole federation")
    for column in ("", "seconds", "times the first", "peak memory", "of its time"):
        table.add_column(column, justify="left" if column in ("", "of its time") else "right")
    for outcome in outcomes:
        ratio = f"{outcome.seconds / outcomes[0].seconds:.2f}"
        name, peak = NAMES[outcome.name], f"{outcome.peak / 1e9:.2f} GB"
        table.add_row(name, f"{outcome.seconds:,.1f}", ratio, peak, shares(outcome))
    return table


def bench(size: str, options: argparse.Namespace, console: Console) -> None:
    """One size: told what it will take, then done."""
    able = [name for name in options.only if not lacking(name)]
    for name in set(options.only) - set(able):
        console.print(f"{NAMES[name]}: skipped, not installed: {', '.join(lacking(name))}")
    steps = options.steps if size == "gpt2" or options.fast else MICRO_STEPS // options.clients
    work = options.clients, options.rounds, steps, options.batch
    guess = sum(expected_seconds(size, name, *work) for name in able)
    console.print(f"{size}: about {duration(guess)} on two idle cores", highlight=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = (micro if size == "micro" else gpt2)(folder, options)
        console.print(table_of(size, [compete(name, job, folder) for name in able]))


def read_options(arguments: Sequence[str], fast: bool) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", nargs="*", choices=("micro", "gpt2"), default=["micro"] if fast else ["micro", "gpt2"]
    )
    parser.add_argument("--only", nargs="*", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--clients", type=int, default=2 if fast else 8)
    parser.add_argument("--rounds", type=int, default=1 if fast else 3, help="of SFT, and as many of DPO")
    parser.add_argument(
        "--steps", type=int, default=2 if fast else STEPS, help="of a client in a round, at GPT-2's size"
    )
    parser.add_argument("--batch", type=int, default=BATCH, help="examples or pairs in a step")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    options.fast = fast
    return options


def main() -> None:
    options, console = read_options(sys.argv[1:], bool(os.environ.get("FAST"))), Console()
    for size in options.sizes:
        bench(size, options, console)


if __name__ == "__main__":
    main()
