"""The precisions of the frozen base (`BASE_PRECISION`): how fast, how near to float32, and what a run makes of it.

    python benchmarks/bench_precision.py [--repeats 15] [--threads 1,2]
    python benchmarks/bench_precision.py --quickstart [--seeds 42,1,2,3,4] [--keep FILE]
    python benchmarks/bench_precision.py --model $(python benchmarks/pretrained.py) --sft-data FILE [--examples 80]

Without arguments: the products of GPT-2's four linear layers with about 800 tokens, forward and backward, beside
float32's. The number of tokens is another in every repeat, as batches have it; its first product is not timed, since
twelve layers share what a library prepares for it. Then whole steps of training at GPT-2's shape with random weights:
their time, and the cosine of their gradient with float32's. All times are interleaved; what counts is the ratio within
a repeat. `--quickstart`: quickstarts of each seed at every precision, a minute or two each, and in float32 with two
threads: so far apart are runs that differ in float noise alone. With `--keep` they go on where an earlier call has
stopped. `--model`: one client's round on a model of one's own at every precision, and the loss on held-out texts.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from scipy import stats  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel  # noqa: E402

import fccl  # noqa: E402
from benchmarks.kept import Kept  # noqa: E402
from fccl.adapters.adapter import Adapter, load_adapter  # noqa: E402
from fccl.config import load_settings  # noqa: E402
from fccl.data.examples import PreferencePair, SftExample, read_examples  # noqa: E402
from fccl.data.shards import ClientShard, load_shard  # noqa: E402
from fccl.evaluation.validation import Validator  # noqa: E402
from fccl.messages import FitTask  # noqa: E402
from fccl.model.encoding import Encoded, Responses  # noqa: E402
from fccl.model.frozen_weight import FROZEN  # noqa: E402
from fccl.model.gpt2 import Gpt2  # noqa: E402
from fccl.model.gpt2_model import FlatFactors, gpt2_of  # noqa: E402
from fccl.model.language_model import LanguageModel, cpu_threads  # noqa: E402
from fccl.model.loading import Models, load_model  # noqa: E402
from fccl.model.packing import pack  # noqa: E402
from fccl.model.precision import DTYPES, int8_is_fast, keep_in  # noqa: E402
from fccl.paths import DataPaths, LogPaths  # noqa: E402
from fccl.specs import BasePrecision, ModelSpec, PreferenceSpec, TrainSpec  # noqa: E402
from fccl.training.engines import learner_for  # noqa: E402

TOKENS = 800  # about, of a batch of eight
SHAPES = ((768, 2304), (768, 768), (768, 3072), (3072, 768))  # of GPT-2's linear layers
PRECISIONS: tuple[BasePrecision, ...] = ("fp32", "bf16", "int8")
SEED = 7


def main() -> int:
    """Print the tables. Returns 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--quickstart", action="store_true")
    parser.add_argument("--seeds", default="42,1,2,3,4", help="of the quickstarts")
    parser.add_argument("--keep", type=Path, help="a file of the quickstarts that are over")
    parser.add_argument("--model", help="a model's folder")
    parser.add_argument("--sft-data", default="builtin", help="what that model is trained and judged on")
    parser.add_argument("--examples", type=int, default=80, help="of these, so many; a fifth is held out")
    parser.add_argument("--precisions", nargs="*", choices=PRECISIONS, default=PRECISIONS)
    options = parser.parse_args()
    print(f"{torch.cpu.get_capabilities().get('cpu_name', 'CPU')}, torch {torch.__version__}, ", end="")
    print("int8 instructions" if int8_is_fast() else "no int8 instructions: int8 is slower than fp32 here")
    if options.model:
        one_client(options)
    elif options.quickstart:
        quickstarts([int(seed) for seed in options.seeds.split(",")], options.precisions, Kept(options.keep))
    else:
        for threads in map(int, options.threads.split(",")):
            with cpu_threads(threads):
                products(threads, options.repeats)
                steps(threads, options.repeats)
    return 0


def products(threads: int, repeats: int) -> None:
    """Both products of each layer, every precision beside float32."""
    draw = random.Random(SEED)
    print(f"\n{threads} thread(s), times as fast as fp32: middle of {repeats} repeats [lowest, highest]\n")
    print("| layer | direction | bf16 | int8 |\n|---|---|---:|---:|")
    for inner, outer in SHAPES:
        weight, bias = torch.randn(inner, outer) / 50, torch.randn(outer)
        maps = {name: FROZEN[name](weight.bfloat16() if name == "bf16" else weight, bias) for name in PRECISIONS}
        for direction, width in (("forward", inner), ("backward", outer)):
            ways: dict[str, Callable[[Tensor], Tensor]] = {
                name: each if direction == "forward" else each.back for name, each in maps.items()
            }
            found = interleaved(ways, repeats, partial(inputs, draw, width))
            print(f"| {inner} x {outer} | {direction} | {found['bf16']} | {found['int8']} |")


def inputs(draw: random.Random, width: int) -> Tensor:
    """Activations or gradients of a batch."""
    return torch.randn(draw.randint(TOKENS - 200, TOKENS + 200), width)


def interleaved(
    ways: Mapping[str, Callable[[Tensor], object]], repeats: int, input_: Callable[[], Tensor]
) -> dict[str, str]:
    """How many times as fast as float32 each way is, on a new input in every repeat."""
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        x = input_()
        for way in ways.values():
            way(x)
        seconds = {name: timed(partial(way, x)) for name, way in ways.items()}
        if repeat:
            for name in ways:
                ratios[name].append(seconds["fp32"] / seconds[name])
    return {name: spread(values) for name, values in ratios.items()}


def timed(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def spread(values: list[float]) -> str:
    """The middle with the range."""
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def steps(threads: int, repeats: int) -> None:
    """Steps of instruction tuning at GPT-2's shape: how fast, and how near."""
    models, draw = gpt2s(), random.Random(SEED)
    ratios: dict[str, list[float]] = {name: [] for name in models}
    cosines: dict[str, list[float]] = {name: [] for name in models}
    for repeat in range(max(4, repeats // 3)):
        packed, found = pack(batch(draw)), {}
        for name, (model, flat) in models.items():
            flat.gradient.zero_()
            found[name] = timed(partial(model.learn, packed, torch.ones_like)), flat.gradient.double()
        if repeat:  # the first packs weights
            for name, (seconds, gradient) in found.items():
                ratios[name].append(found["fp32"][0] / seconds)
                cosines[name].append(float(torch.cosine_similarity(gradient, found["fp32"][1], dim=0)))
    print(f"\n{threads} thread(s), a step of 8 instructions, LoRA r = 8 on c_attn; the head is fp32 throughout\n")
    print("| base | times as fast as fp32 | cosine of the gradient with fp32's, lowest |\n|---|---:|---:|")
    for name in models:
        print(f"| {name} | {spread(ratios[name])} | {min(cosines[name]):.5f} |")


def gpt2s() -> dict[str, tuple[Gpt2, FlatFactors]]:
    """GPT-2 of the real shape at every precision, random, with LoRA whose B is not zero; and its factors."""
    torch.manual_seed(SEED)
    base = GPT2LMHeadModel(GPT2Config())
    made: dict[str, tuple[Gpt2, FlatFactors]] = {}
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    whole = get_peft_model(base, config).eval()
    for name in PRECISIONS:
        model = deepcopy(whole)
        factors = {key: each for key, each in model.named_parameters() if "lora_" in key}
        keep_in(model.get_base_model(), DTYPES[name])
        for each in factors.values():
            each.data = each.data.float()
        flat = FlatFactors.of(factors)
        made[name] = gpt2_of(model.get_base_model(), flat, 2.0, name), flat
    return made


def batch(draw: random.Random) -> list[Responses]:
    """Eight instructions of lengths like Alpaca's."""

    def row() -> Encoded:
        prompt, response = max(3, round(draw.lognormvariate(3.3, 0.6))), max(3, round(draw.lognormvariate(3.8, 0.8)))
        ids = tuple(draw.randrange(50257) for _ in range(min(256, prompt + response)))
        return Encoded(ids, min(prompt, len(ids) - 1), truncated=False)

    return [(row(),) for _ in range(8)]


def quickstarts(seeds: Sequence[int], precisions: Sequence[BasePrecision], kept: Kept, **settings: Any) -> None:
    """The quickstart at every precision with FedAvg's weights, and again with two threads; then how far apart they are.
    `settings` are other settings of the run.

    The loss that a run ends with is always judged in float32, so that only training differs.
    """
    print("\nQuickstarts under ENGINE=gpt2 and CONTRIBUTION_MODE=fedavg on the test split, in nats\n")
    print("| seed | base, threads | SFT, in fp32 | DPO, in fp32 | SFT, as trained | DPO, as trained |")
    print("|---|---|---:|---:|---:|---:|")
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            for name, threads in (*((name, 1) for name in precisions), ("fp32", 2)):
                key = f"{seed} {name} {threads} {sorted(settings.items())}"
                ended = kept.figures(key, partial(quickstart, Path(folder), seed, name, threads, settings))
                found.setdefault(f"{name}, {threads}", []).append((ended[0], ended[1]))
                figures = " | ".join(f"{loss:.4f}" for loss in ended)
                print(f"| {seed} | {name}, {threads} | {figures} |", flush=True)
    print("\n| base, threads | SFT, times fp32's | DPO, times fp32's |\n|---|---:|---:|")
    first, *others = found
    for arrangement in others:
        pairs = zip(found[arrangement], found[first], strict=True)
        sft, va = zip(*((mine[0] / theirs[0], mine[1] / theirs[1]) for mine, theirs in pairs), strict=True)
        print(f"| {arrangement} | {times(sft)} | {times(va)} |")


def times(ratios: Sequence[float]) -> str:
    """The geometric mean of ratios, with Student's 95 % interval where there are several."""
    logs = [math.log(ratio) for ratio in ratios]
    middle = statistics.mean(logs)
    if len(logs) < 2:
        return f"{math.exp(middle):.4f}"
    wide = stats.t.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / len(logs) ** 0.5
    return f"{math.exp(middle):.4f} [{math.exp(middle - wide):.4f}, {math.exp(middle + wide):.4f}]"


def quickstart(
    folder: Path, seed: int, precision: BasePrecision, threads: int, settings: dict[str, Any]
) -> tuple[float, ...]:
    """One run, then its losses of SFT and DPO: in float32, and at the precision that it was trained at."""
    data, logs = folder / "data", folder / f"{precision}-{threads}"
    run = fccl.FederatedRun(
        seed=seed,
        data_dir=data,
        log_dir=logs,
        threads=threads,
        engine="gpt2",
        base_precision=precision,
        contribution_mode="fedavg",
        **settings,
    )
    run.train()
    return *losses(data, logs, "fp32"), *losses(data, logs, precision)


def losses(data_dir: Path, log_dir: Path, precision: BasePrecision) -> tuple[float, float]:
    """The losses of a run's adapters, of SFT after SFT and of DPO at the end, at a precision."""
    data, logs, settings = DataPaths(data_dir), LogPaths(log_dir), load_settings({"engine": "gpt2"})
    model = load_model(settings.model_spec().model_copy(update={"base_precision": precision}))
    sft = read_examples(data.server_split("test", "sft"), SftExample)
    pairs = read_examples(data.server_split("test", "va"), PreferencePair)
    judge = Validator(
        model, sft, pairs, preference=settings.train_spec("va").preference, batch_size=settings.eval_batch_size
    )
    first, last = load_adapter(logs.global_sft), load_adapter(logs.global_final)
    return judge("sft", first, None).loss, judge("va", last, first).loss


def one_client(options: argparse.Namespace) -> None:
    """A round of one client on a model in a folder, at every precision, from the same adapter on the same examples."""
    print(
        f"\n{Path(options.model).name}, one epoch of one client in batches of 4, loss on held-out texts, nats/token\n"
    )
    print("| base | before | after, as trained | after, in fp32 | times fp32's |\n|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        settings = {"sft_data": options.sft_data, "va_data": "synthetic", "max_sft_examples": options.examples}
        fccl.prepare(data_dir=folder, num_clients=1, max_va_examples=20, **settings)
        data, first = DataPaths(Path(folder)), None
        test = read_examples(data.server_split("test", "sft"), SftExample)
        exact = judge_of(options, "fp32", test)
        for name in options.precisions:
            judge = exact if name == "fp32" else judge_of(options, name, test)
            start = judge.model.initial_adapter(SEED)
            before, end = judge("sft", start, None).loss, trained(judge.model, start, load_shard(data, 0))
            after, plain = judge("sft", end, None).loss, exact("sft", end, None).loss
            first = first or plain
            print(f"| {name} | {before:.4f} | {after:.4f} | {plain:.4f} | {plain / first:.4f} |", flush=True)


def judge_of(options: argparse.Namespace, precision: BasePrecision, test: Sequence[SftExample]) -> Validator:
    """The model at a precision, and its loss on held-out texts."""
    spec = ModelSpec(name=options.model, lora_r=8, lora_alpha=16, lora_targets="all-linear", max_length=128)
    model = load_model(spec.model_copy(update={"engine": "auto", "base_precision": precision}))
    return Validator(model, test, [], preference=PreferenceSpec(beta=0.1), batch_size=8)


def trained(model: LanguageModel, start: Adapter, shard: ClientShard) -> Adapter:
    """What a client sends back of this shard."""
    train = TrainSpec(epochs=1, learning_rate=1e-3, batch_size=4, warmup=0.1, schedule="constant", max_grad_norm=1.0)
    task = FitTask("bench", 0, "sft", start, None, model.spec, train, seed=SEED)
    return learner_for(Models.holding(model)).fit(task, shard, lambda status: None).adapter.load()


if __name__ == "__main__":
    raise SystemExit(main())
