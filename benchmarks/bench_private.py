"""DP-SGD at a client (`DP_UNIT=example`): the time of a step beside training without privacy, and the cost in loss.

    python benchmarks/bench_private.py [--steps 40] [--gpt2 4] [--engine gpt2]
    python benchmarks/bench_private.py --cost [--noise 0.5,1,2] [--clip 1] [--batch 64] [--seeds 42]

Speed: both trainings step in turn in this process, on the same batches of the built-in data and of GPT-2's shape
(random weights, Alpaca's lengths). A figure is the median ratio of processor time in a pair of steps. `--gpt2 0` leaves
the large model out.

Cost: whole quickstarts with one thread, uniform weights, at each noise multiplier in batches of `--batch`, and without
privacy in those of the quickstart. Losses are of the final adapter on the test split, as in bench_codec.py; ε is that
of the client that has spent most.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

import fccl  # noqa: E402
from benchmarks.bench_codec import losses  # noqa: E402
from benchmarks.bench_training import Case  # noqa: E402
from fccl.config import load_settings  # noqa: E402
from fccl.data.examples import PreferencePair, SftExample  # noqa: E402
from fccl.data.shards import load_shard, read_manifest  # noqa: E402
from fccl.model.encoding import Responses, encode  # noqa: E402
from fccl.model.language_model import LanguageModel  # noqa: E402
from fccl.model.loading import load_model  # noqa: E402
from fccl.model.objectives import objective_for  # noqa: E402
from fccl.paths import DataPaths, LogPaths  # noqa: E402
from fccl.privacy.secrets import Secret  # noqa: E402
from fccl.privacy.spec import PrivacySpec  # noqa: E402
from fccl.specs import PHASES, ModelSpec, Phase, TrainSpec  # noqa: E402
from fccl.training.by_example import NoisedGradients  # noqa: E402
from fccl.training.loop import TrainingLoss, train  # noqa: E402
from fccl.training.objective import ObjectiveUnderModel  # noqa: E402

BATCH = 8
SPEC = PrivacySpec(where="client", unit="example", clip=1.0, noise=1.0, epsilon=8.0, delta=1e-5)
TRAIN = TrainSpec(epochs=1, learning_rate=1e-3, batch_size=BATCH, warmup=0.0, max_grad_norm=1.0)
TITLES = {"sft": "SFT", "va": "DPO"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40, help="pairs of steps of the built-in model")
    parser.add_argument("--gpt2", type=int, default=4, help="pairs of steps of GPT-2's shape")
    parser.add_argument("--engine", default="gpt2")
    parser.add_argument("--cost", action="store_true", help="whole quickstarts instead: what privacy costs in loss")
    parser.add_argument("--noise", default="0.5,1,2")
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seeds", default="42")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.cost:
        how = {"dp_clip": options.clip, "batch_size": options.batch}
        return cost([float(each) for each in options.noise.split(",")], how, options.seeds.split(","))
    print("| model | training | tokens/s | by DP-SGD | times the time | least to most |")
    print("|---|---|---:|---:|---:|---|")
    built_in(options.engine, options.steps)
    if options.gpt2:
        large(options.engine, options.gpt2)
    return 0


def built_in(engine: str, steps: int) -> None:
    """The quickstart's model on its data."""
    model = load_model(load_settings({"engine": engine, "base_precision": "fp32"}).model_spec())
    with tempfile.TemporaryDirectory() as folder:
        data = DataPaths(Path(folder))
        fccl.prepare(data_dir=folder)
        shard = load_shard(data, 0, read_manifest(data))
    for phase in PHASES:
        rows = encode(model.tokenizer, phase, shard.of(phase), model.spec.max_length, model.spec.text)
        race("built in", model, phase, _repeated(rows, BATCH * (steps + 1)))


def large(engine: str, steps: int) -> None:
    """GPT-2's shape."""
    from scripts.make_random_gpt2 import main as make

    with tempfile.TemporaryDirectory() as folder:
        make(folder)
        targets = {"lora_r": 8, "lora_alpha": 16.0, "lora_targets": "c_attn", "max_length": 256}
        model = load_model(ModelSpec(name=folder, engine=engine, **targets))
        for phase in PHASES:
            examples = [
                SftExample(each["instruction"], each["completion"].strip())
                if phase == "sft"
                else PreferencePair(each["instruction"], each["chosen"].strip(), each["rejected"].strip())
                for each in Case(phase, steps).examples()
            ]
            race("GPT-2's shape", model, phase, encode(model.tokenizer, phase, examples, 256))


def race(name: str, model: LanguageModel, phase: Phase, rows: Sequence[Responses]) -> None:
    """Both trainings, step by step in turn; the first pair does not count."""
    model.load(model.initial_adapter(0))
    reference = torch.zeros(len(rows), 2) if phase == "va" else None
    objective, secret = objective_for(phase, rows, reference), Secret(b"b" * 32)
    plain = ObjectiveUnderModel(model, objective, model.factors)
    private = NoisedGradients(model, objective, model.factors, SPEC, TRAIN, lambda *names: secret.draws(*names))
    spent: dict[str, list[float]] = {"plain": [], "private": []}
    counts = []
    for start in range(0, len(rows) - BATCH + 1, BATCH):
        batch = list(range(start, start + BATCH))
        counts.append(sum(plain.lengths[index] for index in batch))
        ways: list[tuple[str, TrainingLoss]] = [("plain", plain), ("private", private)]
        for way, loss in ways if start // BATCH % 2 else reversed(ways):
            spent[way].append(timed(partial(train_step, model, loss, batch)))
    ratios = [mine / theirs for mine, theirs in zip(spent["private"][1:], spent["plain"][1:], strict=True)]
    rates = [sum(counts[1:]) / sum(seconds[1:]) for seconds in spent.values()]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    figures = f"{rates[0]:,.0f} | {rates[1]:,.0f} | {statistics.median(ratios):.2f} | {spread}"
    print(f"| {name} | {TITLES[phase]} | {figures} |", flush=True)


def train_step(model: LanguageModel, loss: TrainingLoss, batch: list[int]) -> None:
    """One step of the client's own loop, its optimiser and clipping included."""
    train(model.factors, loss, TRAIN, 0, epochs=[[batch]])


def timed(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def cost(noises: Sequence[float], how: dict[str, Any], seeds: Sequence[str]) -> int:
    """A line for each run. `how` are the settings of those with noise."""
    print("| seed | noise | ε | loss after SFT | final | preference loss |")
    print("|---|---:|---:|---:|---:|---:|")
    for seed in seeds:
        for noise in noises:
            private = {"dp_where": "client", "dp_unit": "example", "dp_noise": noise, "dp_epsilon": 1e6}
            epsilon, figures = quickstart(int(seed), **private, **how)
            print(f"| {seed} | {noise:g} | {epsilon:.2f} | {figures} |", flush=True)
        print(f"| {seed} | without | | {quickstart(int(seed))[1]} |", flush=True)
    return 0


def quickstart(seed: int, **settings: Any) -> tuple[float, str]:
    """ε of the client that has spent most, and the losses."""
    with tempfile.TemporaryDirectory() as folder:
        data, logs = Path(folder) / "data", Path(folder) / "logs"
        usual: dict[str, Any] = {"threads": 1, "client_processes": 1, "engine": "gpt2", "keep_updates_mb": 0}
        usual |= {"data_dir": data, "log_dir": logs, "state_dir": Path(folder) / "state"}
        run = fccl.FederatedRun(**usual, seed=seed, contribution_mode="uniform", **settings)
        last = [result.record for result in run][-1]
        figures = " | ".join(f"{each:.4f}" for each in losses(run.settings, data, LogPaths(logs)))
        return (last.privacy.epsilon if last.privacy else 0.0), figures


def _repeated(rows: Sequence[Responses], count: int) -> list[Responses]:
    return [rows[index % len(rows)] for index in range(count)]


if __name__ == "__main__":
    raise SystemExit(main())
