"""Tokens a second of one client's training, beside its rivals, in one interleaved run.

    python benchmarks/bench_training.py [--rounds 5] [--only sft] [--full] [--threads 2] [--markdown]
    python benchmarks/bench_training.py --model $(python benchmarks/pretrained.py) [--targets all-linear]

GPT-2 of the real shape with random weights, LoRA r = 8 on `c_attn`, float32, batches of 8. Lengths are like Alpaca's:
prompts of 35 tokens in the mean, answers of 63, 256 at most. Every contestant has a process of its own and steps when
it is told to, one after the other, on the same examples; what counts is the ratio within a round. The machine's limit
is such a contestant too: the step's matrix products alone. `--full` adds fixed lengths and other batches. `--with
int8` adds this project over a base in int8, `--with compile` the plain loop under torch.compile, which takes a C++
compiler. `--model` is any other causal language
model in a folder; the generic engine is then the first. Tokens a second are by the built-in tokenizer, which is GPT-2's
in kind; the ratios are of seconds. All contestants are in memory at once: `--batch` and `--without` make that less.

`docs/performance.md` has a table that this has made (`--markdown`). A ratio below the least that it names is marked.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fccl.data.examples import prompt_of  # noqa: E402
from fccl.specs import Phase  # noqa: E402

PHASES: dict[Phase, tuple[str, ...]] = {
    "sft": ("gpt2", "generic", "int8", "loop", "compile", "trl-best", "trl", "products"),
    "va": ("gpt2", "generic", "int8", "trl-best", "trl", "products"),
}
OPTIONAL = ("int8", "compile")
OF_GPT2 = ("gpt2", "products")
NAMES = {
    "gpt2": "`ENGINE=gpt2`",
    "generic": "`ENGINE=generic`",
    "int8": "`BASE_PRECISION=int8`",
    "loop": "a plain loop of 40 lines",
    "compile": "the same loop under torch.compile",
    "trl-best": "TRL, best settings found",
    "trl": "TRL, defaults",
    "products": "the step's matrix products alone",
}
PERFORMANCE = ROOT / "docs" / "performance.md"
SECONDS = 45.0  # of one round of all contestants, about, on two cores, for 8 examples of 98 tokens and their start
BATCH = 8
FRAME = 10  # tokens that the prompt has around the instruction
WORDS = "the a red dog is and of in it on see day bird green river has was to no not small one two for from with that"


@dataclass(frozen=True)
class Case:
    """A race: what is trained, on batches of which examples. Without a `length` they are like Alpaca's."""

    phase: Phase
    rounds: int
    batch: int = BATCH
    length: int | None = None

    @property
    def title(self) -> str:
        """The heading of its table."""
        name = {"sft": "SFT", "va": "DPO"}[self.phase]
        if self.length is not None:
            return f"{name}, {self.batch} × {self.length} tokens"
        return name if self.batch == BATCH else f"{name}, batches of {self.batch}"

    @property
    def most(self) -> int:
        """The most tokens that an example has."""
        return 256 if self.length is None else self.length

    def examples(self) -> list[dict[str, str]]:
        """One batch more than there are rounds: the first step does not count."""
        draw = random.Random(7)
        return [self._example(draw) for _ in range(self.batch * (self.rounds + 1))]

    def _example(self, draw: random.Random) -> dict[str, str]:
        """Texts of words that are one token each to the built-in tokenizer. `prompt` is `instruction`, framed."""
        prompt = min(max(FRAME + 1, self._draw(draw, 35)), self.most // 2)
        answers = [" " + words(draw, min(self._draw(draw, 63), self.most - prompt - 1)) for _ in range(2)]
        instruction = words(draw, prompt - FRAME)
        example = {"instruction": instruction, "prompt": prompt_of(instruction)}
        return example | (
            {"completion": answers[0]} if self.phase == "sft" else {"chosen": answers[0], "rejected": answers[1]}
        )

    def _draw(self, draw: random.Random, mean: float) -> int:
        """Log-normal, as the lengths of instructions and answers are; or the mean's share of a fixed length."""
        if self.length is not None:
            return round(self.length * mean / 98) if mean < 50 else self.length
        return max(3, round(draw.lognormvariate(math.log(mean) - 0.32, 0.8)))


def words(draw: random.Random, tokens: int) -> str:
    return " ".join(draw.choice(WORDS.split()) for _ in range(tokens))


def tokens(batch: list[dict[str, str]], phase: Phase) -> int:
    """Real tokens of a batch, end-of-text included; a pair has its prompt twice, however it is computed."""
    answers = ("completion",) if phase == "sft" else ("chosen", "rejected")
    return sum(
        FRAME + len(example["instruction"].split()) + len(example[name].split()) + 1
        for example in batch
        for name in answers
    )


@dataclass(frozen=True)
class Setup:
    """What all races share: the model's folder, where LoRA is, who takes part, and where they write."""

    folder: Path
    targets: str
    threads: int
    scratch: Path
    absent: frozenset[str]
    model: str = ""  # its name, unless it is the usual one

    def names(self, phase: Phase) -> list[str]:
        """Who races in a phase; the first is the yardstick."""
        return [f"{name}-{phase}" for name in PHASES[phase] if name not in self.absent]

    def title(self, case: Case) -> str:
        """The heading of a race's table."""
        return f"{case.title}, {self.model}" if self.model else case.title

    def environment(self, case: Case) -> dict[str, str]:
        """The environment of each contestant."""
        bench = {"THREADS": self.threads, "SCRATCH": self.scratch, "BATCH": case.batch, "MOST": case.most}
        found = {f"BENCH_{name}": str(value) for name, value in (bench | {"TARGETS": self.targets}).items()}
        return {**os.environ, **found, "OMP_NUM_THREADS": str(self.threads), "OMP_WAIT_POLICY": "PASSIVE"}


@dataclass
class Contestant:
    """A process that takes one step whenever it is told to."""

    name: str
    process: subprocess.Popen[str]
    seconds: list[float] = field(default_factory=list)
    peak: float = 0.0

    @classmethod
    def start(cls, name: str, case: Case, data: Path, setup: Setup) -> Contestant:
        script = str(ROOT / "benchmarks" / "training_contestants.py")
        with (setup.scratch / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, script, name, str(setup.folder), str(data)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=setup.environment(case),
            )
        contestant = cls(name, process)
        if contestant._answer() != "ready":
            raise SystemExit(f"{name} did not start:\n{(setup.scratch / f'{name}.log').read_text()[-2000:]}")
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


def race(case: Case, setup: Setup, console: Console) -> list[Contestant]:
    """Every contestant steps once a round; the order turns, so that nobody always follows the same one."""
    data = setup.scratch / "examples.json"
    data.write_text(json.dumps(case.examples()))
    runners, ready = [], []
    for name in setup.names(case.phase):
        started = time.perf_counter()
        with console.status(f"{case.title}: starting {name}"):
            runners.append(Contestant.start(name, case, data, setup))
        ready.append(f"{name} {time.perf_counter() - started:.0f} s")
    console.print(f"loaded, one step taken: {', '.join(ready)}", highlight=False)
    for number in range(case.rounds):
        for runner in runners[number % len(runners) :] + runners[: number % len(runners)]:
            with console.status(f"{case.title}: round {number + 1} of {case.rounds}, {runner.name}"):
                runner.step()
        console.print(f"round {number + 1}: " + ", ".join(f"{one.name} {one.seconds[-1]:.2f} s" for one in runners))
    for runner in runners:
        runner.finish()
    return runners


@dataclass(frozen=True)
class Result:
    """A contestant's line: tokens a second, how often the first contestant is that fast, peak memory in bytes."""

    name: str
    rate: float
    ratios: list[float]
    peak: float

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    def cells(self) -> list[str]:
        """As in `docs/performance.md`."""
        spread = f"{min(self.ratios):.2f} to {max(self.ratios):.2f}"
        return [self.name, f"{self.rate:,.0f}", f"{self.ratio:.2f}", spread, f"{self.peak / 1e9:.1f} GB"]


def results(case: Case, runners: list[Contestant]) -> list[Result]:
    made = case.examples()
    counts = [
        tokens(made[start : start + case.batch], case.phase) for start in range(case.batch, len(made), case.batch)
    ]
    return [
        Result(
            NAMES[runner.name.removesuffix(f"-{case.phase}")],
            statistics.median(count / seconds for count, seconds in zip(counts, runner.seconds, strict=True)),
            [theirs / mine for mine, theirs in zip(runners[0].seconds, runner.seconds, strict=True)],
            runner.peak,
        )
        for runner in runners
    ]


COLUMNS = ("", "tokens/s", "ratio", "least to most", "peak memory")  # the ratio: how many times it the first one is


def show(title: str, found: list[Result], console: Console, markdown: bool) -> None:
    """The table of a race, and what is worse in it than in the table that was recorded."""
    if markdown:
        lines = [COLUMNS, ("---", *["---:"] * 4), *(result.cells() for result in found)]
        console.print(f"### {title}\n", *(f"| {' | '.join(line)} |" for line in lines), sep="\n", soft_wrap=True)
        return
    table = Table(title=f"{title}: {found[0].name.replace('`', '')} is … times it")
    for column in COLUMNS:
        table.add_column(column.replace("`", ""), justify="right" if column else "left")
    before = recorded(title)
    for result in found:
        name, *cells = result.cells()
        worse = result.ratio < before.get(result.name, -math.inf)
        table.add_row(name.replace("`", ""), *cells, style="red" if worse else "")
        if worse:
            console.print(
                f"[red]worse than recorded:[/] {name}: {result.ratio:.2f}, at least {before[result.name]:.2f}"
            )
    console.print(table)


def recorded(title: str) -> dict[str, float]:
    """The least ratio by contestant in the table of this heading in `docs/performance.md`."""
    text = PERFORMANCE.read_text("utf-8") if PERFORMANCE.exists() else ""
    _, _, section = text.partition(f"### {title}\n")
    rows = re.findall(r"^\| (.+?) \| [^|]+ \| [\d.]+ \| ([\d.]+) to [\d.]+ \|", section.partition("\n#")[0], re.M)
    return {name: float(least) for name, least in rows}


def cases(arguments: argparse.Namespace) -> list[Case]:
    phases = [arguments.only] if arguments.only else list(PHASES)
    found = [Case(phase, arguments.rounds, arguments.batch) for phase in phases]
    if arguments.full:
        shapes = [(8, 64), (8, 256), (8, 512), (1, 98), (8, 98), (32, 98)]
        found += [Case(phase, 3, batch, length) for phase in phases for batch, length in shapes]
    return found


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=list(PHASES))
    parser.add_argument("--full", action="store_true", default=os.environ.get("FULL") == "1")
    parser.add_argument("--markdown", action="store_true", help="tables for docs/performance.md")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--with", dest="added", nargs="*", choices=OPTIONAL, default=[], help="take part too")
    parser.add_argument("--without", nargs="*", choices=list(NAMES), default=[], help="do not take part")
    parser.add_argument("--model", type=Path, help="the folder of another model than a random GPT-2")
    parser.add_argument("--targets", help="of LoRA: c_attn for GPT-2, all-linear for another model")
    return parser.parse_args(arguments)


def setup_of(options: argparse.Namespace, scratch: Path) -> Setup:
    """The races' setup; makes a random GPT-2 where no model is named."""
    absent = {*options.without, *OPTIONAL} - set(options.added)
    if options.model:
        targets, absent = options.targets or "all-linear", absent | set(OF_GPT2)
        return Setup(options.model, targets, options.threads, scratch, frozenset(absent), options.model.name)
    folder, script = scratch / "gpt2", ROOT / "scripts" / "make_random_gpt2.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, stdout=subprocess.DEVNULL)
    return Setup(folder, options.targets or "c_attn", options.threads, scratch, frozenset(absent))


def main() -> None:
    options, console = read_options(), Console()
    races = cases(options)
    work = sum(
        (race.rounds + 1) * race.batch * (race.length or 98) / 784 * (2 if race.phase == "va" else 1) for race in races
    )
    console.print(f"{len(races)} races, about {work * SECONDS / 60:.0f} minutes on two cores")
    with tempfile.TemporaryDirectory() as name:
        setup = setup_of(options, Path(name))
        for case in races:
            found = results(case, race(case, setup, console))
            show(setup.title(case), found, console, options.markdown)


if __name__ == "__main__":
    main()
