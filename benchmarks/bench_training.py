"""Tokens a second of one client's training, beside its rivals, in one interleaved run.

    python benchmarks/bench_training.py [--rounds 5] [--only sft] [--threads 2]

GPT-2 of the real shape with random weights, LoRA r = 8 on `c_attn`, float32, batches of 8. Lengths are like Alpaca's:
prompts of 35 tokens in the mean, answers of 63, 256 at most. Every contestant has a process of its own and steps when
it is told to, one after the other, on the same examples; what counts is the ratio within a round. `docs/performance.md`
has a table that this has made.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fccl.data.examples import prompt_of  # noqa: E402

PHASES = {
    "sft": ("gpt2-sft", "generic-sft", "loop-sft", "trl-best-sft", "trl-sft"),
    "va": ("gpt2-va", "generic-va", "trl-best-va", "trl-va"),
}
NAMES = {
    "gpt2": "ENGINE=gpt2",
    "generic": "ENGINE=generic",
    "loop": "a plain loop of 40 lines",
    "trl-best": "TRL, best settings found",
    "trl": "TRL, defaults",
}
BATCH, MOST = 8, 256
FRAME = 10  # tokens that the prompt has around the instruction
WORDS = "the a red dog is and of in it on see day bird green river has was to no not small one two for from with that"


def length(draw: random.Random, mean: float) -> int:
    """Log-normal, as the lengths of instructions and answers are."""
    return max(3, round(draw.lognormvariate(math.log(mean) - 0.32, 0.8)))


def examples(phase: str, count: int) -> list[dict[str, str]]:
    """Texts of words that are one token each to the built-in tokenizer. `prompt` is `instruction`, framed."""
    draw, words = random.Random(7), WORDS.split()

    def text(tokens: int) -> str:
        return " ".join(draw.choice(words) for _ in range(tokens))

    made = []
    for _ in range(count):
        prompt = min(max(FRAME + 1, length(draw, 35)), MOST // 2)
        answers = [" " + text(min(length(draw, 63), MOST - prompt - 1)) for _ in range(2)]
        instruction = text(prompt - FRAME)
        example = {"instruction": instruction, "prompt": prompt_of(instruction)}
        example |= {"completion": answers[0]} if phase == "sft" else {"chosen": answers[0], "rejected": answers[1]}
        made.append(example)
    return made


def tokens(batch: list[dict[str, str]], phase: str) -> int:
    """Real tokens of a batch, end-of-text included; a pair has its prompt twice, however it is computed."""
    answers = ("completion",) if phase == "sft" else ("chosen", "rejected")
    return sum(
        FRAME + len(example["instruction"].split()) + len(example[name].split()) + 1
        for example in batch
        for name in answers
    )


@dataclass
class Contestant:
    """A process that takes one step whenever it is told to."""

    name: str
    process: subprocess.Popen[str]
    seconds: list[float] = field(default_factory=list)
    peak: float = 0.0

    @classmethod
    def start(cls, name: str, folder: Path, data: Path, threads: int, scratch: Path) -> Contestant:
        command = [sys.executable, str(ROOT / "benchmarks" / "training_contestants.py"), name, str(folder), str(data)]
        environment = os.environ | {"BENCH_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        environment |= {"BENCH_SCRATCH": str(scratch), "OMP_WAIT_POLICY": "PASSIVE"}
        with (scratch / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        contestant = cls(name, process)
        if contestant._answer() != "ready":
            raise SystemExit(f"{name} did not start:\n{(scratch / f'{name}.log').read_text()[-2000:]}")
        return contestant

    def step(self) -> None:
        self._ask()
        self.seconds.append(float(self._answer()))

    def finish(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.peak = float(self._answer())
        self.process.wait()

    def _ask(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


def gemm_rate(rows: int, threads: int) -> float:
    """Floating-point operations a second of the step's largest product, in a fresh process with its own threads."""
    code = (
        f"import torch, time; torch.set_num_threads({threads})\n"
        f"a, w = torch.randn({rows}, 768), torch.randn(768, 3072)\n"
        "best = 9e9\n"
        "for _ in range(12):\n t = time.perf_counter(); a @ w; best = min(best, time.perf_counter() - t)\n"
        f"print(2 * {rows} * 768 * 3072 / best)"
    )
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def race(phase: str, rounds: int, threads: int, scratch: Path, console: Console) -> list[Contestant]:
    """Every contestant steps once a round; the order turns, so that nobody always follows the same one."""
    made = examples(phase, BATCH * (rounds + 1))
    data = scratch / f"{phase}.json"
    data.write_text(json.dumps(made))
    runners = []
    for name in PHASES[phase]:
        console.print(f"starting {name} ...")
        runners.append(Contestant.start(name, scratch / "gpt2", data, threads, scratch))
    for number in range(rounds):
        turned = runners[number % len(runners) :] + runners[: number % len(runners)]
        for runner in turned:
            runner.step()
        console.print(f"round {number + 1}: " + ", ".join(f"{one.name} {one.seconds[-1]:.2f} s" for one in runners))
    for runner in runners:
        runner.finish()
    return runners


def show(phase: str, runners: list[Contestant], counts: list[int], console: Console) -> None:
    """Tokens a second, and how many times the first contestant is the others, with the spread over rounds."""
    table = Table(title={"sft": "SFT", "va": "DPO"}[phase])
    for column in ("", "tokens/s", "gpt2 is … times it", "least, most", "peak memory"):
        table.add_column(column, justify="left" if not column else "right")
    for runner in runners:
        rate = statistics.median(count / seconds for count, seconds in zip(counts, runner.seconds, strict=True))
        ratios = [theirs / mine for mine, theirs in zip(runners[0].seconds, runner.seconds, strict=True)]
        name = NAMES[runner.name.removesuffix(f"-{phase}")]
        spread = f"{min(ratios):.2f}, {max(ratios):.2f}"
        table.add_row(name, f"{rate:,.0f}", f"{statistics.median(ratios):.2f}", spread, f"{runner.peak / 1e9:.1f} GB")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=list(PHASES))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        script = ROOT / "scripts" / "make_random_gpt2.py"
        subprocess.run([sys.executable, str(script), str(scratch / "gpt2")], check=True, stdout=subprocess.DEVNULL)
        for phase in [arguments.only] if arguments.only else list(PHASES):
            runners = race(phase, arguments.rounds, arguments.threads, scratch, console)
            made = examples(phase, BATCH * (arguments.rounds + 1))
            counts = [tokens(made[start : start + BATCH], phase) for start in range(BATCH, len(made), BATCH)]
            show(phase, runners, counts, console)
            console.print(f"one matrix product of its size: {gemm_rate(784, arguments.threads) / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
