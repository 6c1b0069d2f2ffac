"""The time that LORA_LAYERS gives and the quality that it costs.

    python benchmarks/bench_layers.py [--layers 4,2] [--rounds 10] [--steps 2] [--phase sft] [--threads 2]
    python benchmarks/bench_layers.py --quality [--fed-rounds 10] [--seed 42]

Time: GPT-2 of the real shape with random weights, LoRA r = 8 on `c_attn`, float32, the written-out engine. A client
trains on the same examples in every round, in batches of 8. All variants are in one process and step in turn, so what
counts is the ratio within a step. The first round also computes the activations that later rounds find.
`--processor` counts processor time, for a machine that does other things too.

Quality: the quickstart with LoRA on all layers, on half and on one. Loss and accuracy are of the validation split,
after the last round of each phase.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from benchmarks.bench_training import Case  # noqa: E402
from benchmarks.training_contestants import ALPHA, BATCH, BETA, MOST, RANK, RATE, encoded  # noqa: E402
from fccl import FederatedRun, prepare  # noqa: E402
from fccl.model.loading import load_model  # noqa: E402
from fccl.model.objectives import objective_for  # noqa: E402
from fccl.records.run import RoundRecord  # noqa: E402
from fccl.specs import ModelSpec, Phase, PreferenceSpec  # noqa: E402
from fccl.training.objective import ObjectiveUnderModel  # noqa: E402

ALL = 12  # layers of GPT-2
ARITHMETIC = {4: 2.1, 2: 2.8}  # times as fast once the activations are there
QUICKSTART_LAYERS = ("all", "2", "1")


@dataclass
class Variant:
    """A client with LoRA on so many layers, and the seconds of its steps."""

    layers: int
    step: Callable[[], None]
    seconds: list[float] = field(default_factory=list)

    @classmethod
    def made(cls, layers: int, folder: Path, phase: Phase, texts: list[dict[str, str]]) -> Variant:
        """Reference log-probabilities of DPO are computed here: the activations are kept only from then on."""
        spec = ModelSpec(
            name=str(folder),
            lora_r=RANK,
            lora_alpha=ALPHA,
            lora_targets="c_attn",
            lora_layers=None if layers == ALL else layers,
            max_length=MOST,
            engine="gpt2",
        )
        model = load_model(spec)
        model.load(model.initial_adapter(0))
        rows = encoded(model.tokenizer, phase, texts)
        reference = torch.zeros(len(rows), 2, dtype=torch.float64) if phase == "va" else None
        objective = ObjectiveUnderModel(model, objective_for(phase, rows, reference, PreferenceSpec(beta=BETA)))
        return cls(layers, steps_of(objective).__next__)


def steps_of(objective: ObjectiveUnderModel) -> Iterator[None]:
    """Steps of training, the same batches again and again."""
    factors = objective.model.factors
    optimizer = torch.optim.AdamW(factors.values(), lr=RATE, fused=True)
    while True:
        for start in range(0, len(objective.objective.examples), BATCH):
            found = objective.at(range(start, start + BATCH))
            for name, factor in factors.items():
                factor.grad = found.gradient[name]
            torch.nn.utils.clip_grad_norm_(factors.values(), 1.0)
            optimizer.step()
            yield


def race(variants: Sequence[Variant], steps: int, clock: Callable[[], float]) -> None:
    """Every variant steps once a turn, beginning with another one each time."""
    for number in range(steps):
        first = number % len(variants)
        for variant in (*variants[first:], *variants[:first]):
            started = clock()
            variant.step()
            variant.seconds.append(clock() - started)
        print(f"step {number + 1}: " + ", ".join(f"{one.layers}: {one.seconds[-1]:.2f} s" for one in variants))


def show_time(phase: str, variants: Sequence[Variant], steps: int, console: Console) -> None:
    """The ratios of the variant with LoRA on all layers to the others: in the first round, later, and in all."""
    table = Table(title=f"{phase}: times as fast as with LoRA on all layers")
    for column in ("layers", "s a step", "first round", "later rounds", "least, most", "all rounds", "arithmetic"):
        table.add_column(column, justify="right")
    whole = variants[0].seconds
    for variant in variants:
        mine = variant.seconds
        ratios = [theirs / own for theirs, own in zip(whole[steps:], mine[steps:], strict=True)]
        table.add_row(
            str(variant.layers),
            f"{statistics.median(mine[steps:]):.2f}",
            f"{sum(whole[:steps]) / sum(mine[:steps]):.2f}",
            f"{statistics.median(ratios):.2f}",
            f"{min(ratios):.2f}, {max(ratios):.2f}",
            f"{sum(whole) / sum(mine):.2f}",
            f"{ARITHMETIC[variant.layers]:.1f}" if variant.layers in ARITHMETIC else "",
        )
    console.print(table)


def measure_time(arguments: argparse.Namespace, console: Console) -> None:
    """Race all variants in the phases asked for."""
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.processor else time.perf_counter
    layers = [ALL, *map(int, arguments.layers.split(","))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "gpt2"
        script = ROOT / "scripts" / "make_random_gpt2.py"
        subprocess.run([sys.executable, str(script), str(folder)], check=True, stdout=subprocess.DEVNULL)
        for phase in arguments.phase.split(","):
            texts = Case(phase, arguments.steps - 1).examples()
            variants = [Variant.made(count, folder, phase, texts) for count in layers]
            race(variants, arguments.rounds * arguments.steps, clock)
            show_time(phase, variants, arguments.steps, console)


def measure_quality(arguments: argparse.Namespace, console: Console) -> None:
    """Run the quickstart once a number of layers, in a folder of its own."""
    table = Table(title=f"quickstart, {arguments.fed_rounds} rounds of each phase, seed {arguments.seed}")
    for column in ("layers", "SFT loss", "DPO loss", "preference accuracy", "training, s"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as name, chdir(name):
        data = prepare(seed=arguments.seed)
        for layers in QUICKSTART_LAYERS:
            run = FederatedRun(
                data,
                engine="gpt2",
                lora_layers=layers,
                fed_rounds=arguments.fed_rounds,
                client_processes=1,  # clients beside each other would share the cores, and so their seconds
                log_dir=f"logs-{layers}",
            )
            table.add_row(layers, *quality([result.record for result in run]))
    console.print(table)


def quality(records: Sequence[RoundRecord]) -> list[str]:
    """The last validation of each phase, and the seconds that all clients trained."""
    last = {record.phase: record.validation for record in records}
    sft, va = last["sft"], last["va"]
    assert sft is not None
    assert va is not None
    seconds = sum(each.seconds for record in records for each in record.contributions)
    return [f"{sft.loss:.4f}", f"{va.loss:.4f}", f"{va.preference_accuracy:.1%}", f"{seconds:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", default="4,2")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=2, help="steps of 8 examples in a round")
    parser.add_argument("--phase", default="sft,va")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--processor", action="store_true")
    parser.add_argument("--quality", action="store_true", help="the quickstart's quality instead of the time")
    parser.add_argument("--fed-rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    (measure_quality if arguments.quality else measure_time)(arguments, Console(width=110))


if __name__ == "__main__":
    main()
