"""A GPU's training of GPT-2 with LoRA: whether it is exact, and how fast. One command, under five minutes.

    python benchmarks/bench_gpu.py [--device cpu] [--steps 20] [--out build/bench-gpu.md]

Checks first, each a figure and its limit: gradients against a CPU's in float64, a recorded step against the same step
done eagerly, clients in one batch against each alone, the same bytes twice, attention by variable lengths against
padded rows, a bfloat16 base against float32. Then tokens a second at batches of 8 with Alpaca-like lengths, 98 tokens
in the mean: one client eagerly and recorded, 3 and 8 clients at once, both precisions, TRL at its best. Beside each
stands its share of what the GPU's bfloat16 products alone would allow, and its peak memory.

Without a GPU, or with `--device cpu`, a small model runs the same code with the eager twin of the recorder. The checks
hold there too; the times say nothing. Prints the tables, writes them as Markdown, and ends with 1 when a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

if "cpu" in sys.argv:  # before torch is there: the same code then sees no GPU
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from torch import Tensor  # noqa: E402
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel  # noqa: E402

from benchmarks.bench_training import Case, Contestant, Setup, tokens  # noqa: E402
from benchmarks.training_contestants import both_ways, encoded  # noqa: E402
from fccl.adapters.adapter import Adapter  # noqa: E402
from fccl.model.base_model import base_path  # noqa: E402
from fccl.model.encoding import Responses  # noqa: E402
from fccl.model.gpt2 import attention  # noqa: E402
from fccl.model.gpt2_model import Gpt2LanguageModel, load_gpt2  # noqa: E402
from fccl.model.objectives import Objective, objective_for  # noqa: E402
from fccl.model.packing import pack  # noqa: E402
from fccl.model.variable_length import attention_by_starts, has_variable_length  # noqa: E402
from fccl.presets import BUILTIN_MODEL  # noqa: E402
from fccl.specs import BasePrecision, ModelSpec, Phase, TrainSpec  # noqa: E402
from fccl.training.clients_training import ClientsTraining, ClientWork  # noqa: E402
from fccl.training.loop import LoopResult, train  # noqa: E402
from fccl.training.objective import ObjectiveUnderModel  # noqa: E402
from fccl.training.recorded import Recorder, eager, recorder_for  # noqa: E402

BATCH, MOST = 8, 256
SPEC = TrainSpec(epochs=1, learning_rate=1e-4, batch_size=BATCH, warmup=0.1, max_grad_norm=1.0, dpo_beta=0.002)
SMALL = {"n_layer": 2, "n_embd": 32, "n_head": 2}
NO_GPU = "No GPU: a small model runs the checks on the CPU, recorded steps eagerly, and its times say nothing"
PHASE_NAMES: dict[Phase, str] = {"sft": "SFT", "va": "DPO"}
Gradient = dict[str, Tensor]


@dataclass(frozen=True)
class Check:
    """A figure that may be at most `limit`; without a figure, the reason why there is none."""

    name: str
    figure: float | None
    limit: float
    note: str = ""

    @property
    def fails(self) -> bool:
        return self.figure is not None and not self.figure <= self.limit

    def cells(self) -> list[str]:
        figure = self.note if self.figure is None else f"{self.figure:.1e}"
        return [
            self.name,
            figure,
            f"{self.limit:.0e}",
            "fails" if self.fails else "-" if self.figure is None else "holds",
        ]


@dataclass(frozen=True)
class Measure:
    """Tokens a second of one arrangement, what products alone would allow, and bytes at the peak; None: not known."""

    name: str
    rate: float
    bound: float | None
    peak: float | None

    def cells(self, first: float) -> list[str]:
        share = "-" if self.bound is None else f"{self.rate / self.bound:.0%}"
        peak = "-" if self.peak is None else f"{self.peak / 1e9:.2f} GB"
        return [self.name, f"{self.rate:,.0f}", f"{self.rate / first:.2f}", share, peak]


@dataclass(frozen=True)
class Lab:
    """One model, random weights and B ≠ 0, in all forms that are compared; and the examples."""

    folder: Path
    device: torch.device
    steps: int

    @cached_property
    def fp32(self) -> Gpt2LanguageModel:
        return self._model("fp32")

    @cached_property
    def bf16(self) -> Gpt2LanguageModel:
        return self._model("bf16")

    @cached_property
    def exact(self) -> Gpt2LanguageModel:
        """The same numbers on the CPU, in float64."""
        model = self._model("fp32")
        model.model.to("cpu", torch.float64)
        return replace(model, device=torch.device("cpu"))

    def case(self, phase: Phase) -> Case:
        return Case(phase, self.steps, BATCH)

    def objective(self, phase: Phase, turn: int = 0) -> Objective:
        """A loss over all examples but the first batch; clients have them in another order each."""
        examples = self.case(phase).examples()[BATCH:]
        rows: list[Responses] = list(encoded(self.fp32.tokenizer, phase, examples[turn:] + examples[:turn]))
        reference = torch.zeros(len(rows), 2, dtype=torch.float64) if phase == "va" else None
        return objective_for(phase, rows, reference, SPEC.preference)

    @property
    def recorder(self) -> Recorder:
        """The device's own, or its twin."""
        return recorder_for(self.device) or eager

    @property
    def arrangements(self) -> list[tuple[int, Recorder, str]]:
        """Clients at once, and how their step is done."""
        counts = (1, 3, 8) if self.device.type == "cuda" else (1, 2)
        return [*((count, self.recorder, "recorded") for count in counts), (counts[-1], eager, "eager")]

    def _model(self, precision: BasePrecision) -> Gpt2LanguageModel:
        lora = {"lora_r": 8, "lora_alpha": 16.0, "lora_targets": "c_attn", "max_length": MOST}
        model = load_gpt2(ModelSpec(name=str(self.folder), engine="gpt2", base_precision=precision, **lora))
        draw = torch.Generator().manual_seed(1)
        shapes = model.form.shapes.items()
        model.load(Adapter({name: 0.02 * torch.randn(shape, generator=draw) for name, shape in shapes}))
        return model


def gradient(model: Gpt2LanguageModel, objective: Objective, count: int = BATCH) -> Gradient:
    """Of the first examples, float64 on the CPU."""
    found = ObjectiveUnderModel(model, objective).at(range(count)).gradient
    return {name: part.double().cpu() for name, part in found.items()}


def apart(found: Gradient, expected: Gradient, start: Gradient | None = None) -> float:
    """The relative distance of two gradients, or of two ends of a training relative to the way from its start."""
    way = {name: part - start[name] for name, part in expected.items()} if start else expected
    squares = sum(float((found[name] - part).square().sum()) for name, part in expected.items())
    return float((squares / sum(float(part.square().sum()) for part in way.values())) ** 0.5)


def checks(lab: Lab) -> Iterator[Check]:
    """All checks, one after another."""
    for phase, name in PHASE_NAMES.items():
        objective = lab.objective(phase)
        exact = gradient(lab.exact, objective)
        found = gradient(lab.fp32, objective)
        yield Check(f"gradient in float32 against a CPU's in float64, {name}", apart(found, exact), 1e-5)
        away = 1 - float(torch.cosine_similarity(_flat(gradient(lab.bf16, objective)), _flat(exact), dim=0))
        yield Check(f"1 - cosine of the gradient over a bfloat16 base, {name}", away, 1e-3)
        yield from _together(lab, phase, name)
    yield _variable_length(lab)


def _together(lab: Lab, phase: Phase, name: str) -> Iterator[Check]:
    """Three clients in one batch: recorded, again, eagerly, and each alone."""
    losses = [lab.objective(phase, BATCH * turn) for turn in range(3)]
    start = _copied(dict(lab.fp32.factors))
    first, again, anew = (learned(lab, losses, recorder) for recorder in (lab.recorder, lab.recorder, eager))
    unlike = sum(int((one[each] != other[each]).sum()) for one, other in zip(first, again, strict=True) for each in one)
    yield Check(f"numbers that differ when a training is repeated, {name}", unlike, 0)
    pairs = zip(first, anew, strict=True)
    yield Check(f"recorded against eager, of the way, {name}", max(apart(*pair, start) for pair in pairs), 1e-4)
    alone = []
    for client, objective in enumerate(losses):
        with torch.no_grad():
            for factor, part in lab.fp32.factors.items():
                part.copy_(start[factor])
        train(lab.fp32.factors, ObjectiveUnderModel(lab.fp32, objective), SPEC, client)
        alone.append(_copied(dict(lab.fp32.factors)))
    with torch.no_grad():
        for factor, part in lab.fp32.factors.items():
            part.copy_(start[factor])
    pairs = zip(first, alone, strict=True)
    yield Check(f"in one batch against alone, of the way, {name}", max(apart(*pair, start) for pair in pairs), 1e-2)


def _variable_length(lab: Lab) -> Check:
    """Attention and its gradient by torch's kernel in bfloat16, against padded rows in float32."""
    name = "attention by variable lengths in bfloat16 against padded rows"
    if not has_variable_length(lab.device):
        return Check(name, None, 2e-2, "no such kernel here")
    packed = pack(lab.objective("sft").examples[:BATCH]).to(lab.device)
    heads, width = lab.fp32.base.config.n_head, lab.fp32.base.config.n_embd
    draw = torch.Generator(lab.device).manual_seed(1)
    qkv = torch.randn(len(packed.ids), 3 * width, generator=draw, device=lab.device)
    found = []
    for attend in (attention_by_starts, attention):
        merged, backward = attend(qkv, packed, heads, True)
        found.append({"forward": merged.double().cpu(), "backward": backward(merged).double().cpu()})
    return Check(name, apart(*found), 2e-2)


def learned(lab: Lab, losses: Sequence[Objective], recorder: Recorder) -> list[Gradient]:
    """The factors of clients that have trained together."""
    training = ClientsTraining(lab.fp32, len(losses), SPEC, losses[0], recorder=recorder)
    training.train([ClientWork(objective, seed) for seed, objective in enumerate(losses)])
    return [_copied(training.learned(client)) for client in range(len(losses))]


def _copied(values: Gradient) -> Gradient:
    return {name: part.detach().double().cpu().clone() for name, part in values.items()}


def _flat(parts: Gradient) -> Tensor:
    return torch.cat([parts[name].reshape(-1) for name in sorted(parts)])


def measures(lab: Lab) -> Iterator[Measure]:
    """All arrangements, the eager loop of one client first."""
    for precision, model in (("fp32", lab.fp32), ("bf16", lab.bf16)):
        objective = lab.objective("sft")
        yield measured(
            lab, f"{precision}, one client, eager", 1, partial(alone, model, ObjectiveUnderModel(model, objective))
        )
        for clients, recorder, how in lab.arrangements:
            training = ClientsTraining(model, clients, SPEC, objective, recorder=recorder)
            works = [ClientWork(lab.objective("sft", BATCH * turn), turn) for turn in range(clients)]
            name = f"{precision}, {clients} at once, {how}"
            yield measured(lab, name, clients, partial(training.train, works))
    if lab.device.type == "cuda":
        yield trl(lab)


def alone(model: Gpt2LanguageModel, loss: ObjectiveUnderModel) -> list[LoopResult]:
    """One client in the eager loop."""
    return [train(model.factors, loss, SPEC, 0)]


def measured(lab: Lab, name: str, clients: int, work: Callable[[], Sequence[object]]) -> Measure:
    """The second of two goes: the first allocates and records."""
    work()
    with peak_memory(lab.device) as peak:
        started = time.perf_counter()
        results = [each for each in work() if isinstance(each, LoopResult)]
        synchronize(lab.device)
        seconds = time.perf_counter() - started
    return Measure(name, sum(each.tokens for each in results) / seconds, bound(lab, clients), peak[0])


def bound(lab: Lab, clients: int) -> float:
    """Tokens a second of the bfloat16 products of a step alone, forward and to the input, of so many clients."""
    config, rows = lab.fp32.base.config, [*lab.objective("sft").examples[:BATCH]] * clients
    packed, width = pack(rows), config.n_embd
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    weights = [torch.randn(shape, device=lab.device, dtype=torch.bfloat16) for shape in shapes]
    head = torch.randn(width, config.vocab_size, device=lab.device, dtype=torch.bfloat16)
    found = []
    for _ in range(3):
        synchronize(lab.device)
        started = time.perf_counter()
        for layer in range(config.n_layer):
            for place, weight in enumerate(weights):
                whole = layer < config.n_layer - 1 or place == 0
                count = len(packed.ids) if whole else len(packed.rows)
                both_ways(torch.empty(count, len(weight), device=lab.device, dtype=weight.dtype), weight)
        both_ways(torch.empty(len(packed.rows), width, device=lab.device, dtype=head.dtype), head)
        synchronize(lab.device)
        found.append(len(packed.ids) / (time.perf_counter() - started))
    return max(found)


def trl(lab: Lab) -> Measure:
    """TRL at its best on the same examples, in bfloat16, in a process of its own."""
    case = lab.case("sft")
    made = case.examples()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "examples.json").write_text(json.dumps(made))
        os.environ["BENCH_BF16"] = "1"
        setup = Setup(lab.folder, "c_attn", os.cpu_count() or 1, scratch, absent=frozenset())
        runner = Contestant.start("trl-best-sft", case, scratch / "examples.json", setup)
        for _ in range(lab.steps):
            runner.step()
        runner.finish()
    return Measure(
        "TRL, best settings found, bf16", tokens(made[BATCH:], "sft") / sum(runner.seconds), None, runner.peak
    )


@contextmanager
def peak_memory(device: torch.device) -> Iterator[list[float | None]]:
    """One number, once the block is over: bytes of the GPU at the peak."""
    found: list[float | None] = [None]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield found
    if device.type == "cuda":
        found[0] = float(torch.cuda.max_memory_allocated(device))


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_model(folder: Path, small: bool) -> None:
    """GPT-2 of the real shape, or a small one, random weights, the built-in tokenizer."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(base_path(BUILTIN_MODEL), model_max_length=1024)
    ends = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    shape = {**SMALL, "vocab_size": len(tokenizer)} if small else {}
    GPT2LMHeadModel(GPT2Config(**ends, **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def markdown(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table under a heading."""
    lines = [columns, ("---", *["---:"] * (len(columns) - 1)), *rows]
    return "\n".join([f"## {title}", "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def report(lab: Lab, console: Console) -> tuple[str, bool]:
    """The page, and whether every check holds."""
    found = []
    for check in checks(lab):
        console.print(": ".join(check.cells()[:2]), style="red" if check.fails else "", highlight=False)
        found.append(check)
    rates: list[Measure] = []
    for measure in measures(lab):
        console.print(f"{measure.name}: {measure.rate:,.0f} tokens/s", highlight=False)
        rates.append(measure)
    gpu = lab.device.type == "cuda"
    machine = torch.cuda.get_device_name(lab.device) if gpu else NO_GPU
    columns = ("", "tokens/s", "times the eager loop", "of bf16 products alone", "peak memory")
    page = [
        f"# Training on a GPU\n\n{machine}, torch {torch.__version__}; {lab.steps} steps a client.\n",
        markdown("Checks", ("", "figure", "limit", ""), [check.cells() for check in found]),
        markdown("Tokens a second, SFT", columns, [measure.cells(rates[0].rate) for measure in rates]),
    ]
    return "\n".join(page), not any(check.fails for check in found)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, help="of each client (20; on a CPU 3)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench-gpu.md")
    options, console = parser.parse_args(arguments), Console()
    small = options.device == "cpu"
    if small:
        console.print(NO_GPU)
    elif not torch.cuda.is_available():
        raise SystemExit("--device cuda: torch sees no GPU here; leave it out, and the checks run on the CPU")
    with tempfile.TemporaryDirectory() as name:
        make_model(Path(name), small)
        lab = Lab(Path(name), torch.device(options.device), options.steps or (3 if small else 20))
        page, holds = report(lab, console)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(page, encoding="utf-8")
    console.print(page, markup=False, highlight=False, soft_wrap=True)
    console.print(f"Written to {options.out}", highlight=False, soft_wrap=True)
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
