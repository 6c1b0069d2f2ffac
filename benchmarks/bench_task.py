"""How hard the built-in task is: what the server's examples alone teach, beside FedAvg and beside all data pooled.

    python benchmarks/bench_task.py [--rounds 3,10] [--passes 3,10,30,100] [--rates 4e-3,1e-3] [--seed 42]
    python benchmarks/bench_task.py --only server,fedavg

Instruction rounds alone, with the settings' defaults. 8 clients, Dirichlet 0.3; the shuffled ones are clients 0, 1 and
2. `server` trains on all examples that the server holds, `pooled` on all clients' in one place; both as a federation of
one, so a pass is a round. Figures are of the test split: response perplexity and exact answers, of all and of the
sayings, which only the clients' data tell. It can be run in a checkout of an earlier version too.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from fccl import Adapter, Data, FederatedRun, FitTask, prepare  # noqa: E402
from fccl.config import load_settings  # noqa: E402
from fccl.data.examples import SftExample  # noqa: E402
from fccl.data.shards import ClientShard  # noqa: E402
from fccl.evaluation.suite import same_answer  # noqa: E402
from fccl.library.data import Split  # noqa: E402
from fccl.model.encoding import encode_sft  # noqa: E402
from fccl.model.generate import generate  # noqa: E402
from fccl.model.language_model import LanguageModel  # noqa: E402
from fccl.model.loading import Models  # noqa: E402
from fccl.model.scoring import score_sft  # noqa: E402
from fccl.training.engines import learner_for  # noqa: E402

BATCH, ANSWER_TOKENS = 32, 24
FACTS = "sayings"  # how the topics begin whose answers only the clients' data tell
BAD = "0,1,2"


def _cells(nll: NDArray[np.float64], tokens: NDArray[np.int64], right: NDArray[np.bool_]) -> str:
    """Perplexity and share of exact answers of some examples, each array (n,); nothing of none."""
    return f"{np.exp(nll.sum() / tokens.sum()):.2f} | {right.mean():.1%}" if len(nll) else " | "


@dataclass(frozen=True, eq=False)
class Judge:
    """The test split: one line of figures for every adapter."""

    model: LanguageModel
    examples: Sequence[SftExample]

    def line(self, adapter: Adapter) -> str:
        """Perplexity and exact answers, each of all examples and of the facts."""
        self.model.load(adapter)
        rows = encode_sft(self.model.tokenizer, self.examples, self.model.spec.max_length)
        scores, right = score_sft(self.model, rows, BATCH), self._right()
        groups = [np.ones(len(rows), dtype=bool), self._facts]
        return " | ".join(_cells(scores.nll[group], scores.tokens[group], right[group]) for group in groups)

    def _right(self) -> NDArray[np.bool_]:
        """Whether the greedy response to each example is its answer: (n,)."""
        texts = generate(self.model, [example.instruction for example in self.examples], ANSWER_TOKENS, BATCH)
        return np.array([same_answer(text, example.answer) for text, example in zip(texts, self.examples, strict=True)])

    @cached_property
    def _facts(self) -> NDArray[np.bool_]:
        return np.array([example.topic.startswith(FACTS) for example in self.examples])


@dataclass(frozen=True)
class Bench:
    """The contestants of one seed. Each gives an adapter after every round or pass."""

    seed: int
    models: Models

    def data(self, clients: int = 8, bad: str = "") -> Data:
        """The built-in data, dealt; the server's part is the same however it is dealt."""
        folder = f"data-{clients}-{len(bad)}"
        return prepare(num_clients=clients, non_iid_alpha=0.3, noisy_clients=bad, seed=self.seed, data_dir=folder)

    def federation(self, data: Data, rounds: int) -> Iterator[Adapter]:
        """FedAvg, in the instruction rounds alone."""
        folder = tempfile.mkdtemp(prefix="logs-", dir=".")
        run = FederatedRun(data, fed_rounds=rounds, contribution_mode="fedavg", keep_updates_mb=0, log_dir=folder)
        for _, result in zip(range(rounds), run, strict=False):  # the preference rounds come after these
            yield result.state.adapter

    def server(self, passes: int, rate: float) -> Iterator[Adapter]:
        """The server's examples, trained on as one client trains on its own."""
        settings = load_settings({"seed": str(self.seed), "sft_lr": str(rate)})
        model, train = settings.model_spec(), settings.train_spec("sft")
        adapter = self.models.of(model).initial_adapter(self.seed)
        shard, learner = ClientShard(0, self.held(self.data()), ()), learner_for(self.models)
        for number in range(passes):
            task = FitTask("server", number, "sft", adapter, None, model, train, self.seed)
            adapter = learner.fit(task, shard, lambda status: None).adapter.load()
            yield adapter

    @staticmethod
    def held(data: Data) -> tuple[SftExample, ...]:
        """All that the server may train on: every split of its own but the test split."""
        own: tuple[Split, ...] = ("learn", "validation")  # earlier versions have no learn split
        held = [split for split in own if split in data.manifest.counts]
        return tuple(example for split in held for example in data.examples(split, "sft"))


def contestants(
    bench: Bench, rounds: int, passes: int, rates: Sequence[float]
) -> dict[str, Callable[[], Iterator[Adapter]]]:
    """By name; none has begun."""
    alone = {f"server {rate:g}": partial(bench.server, passes, rate) for rate in rates}
    return {
        **alone,
        "fedavg": lambda: bench.federation(bench.data(), rounds),
        "shuffled": lambda: bench.federation(bench.data(bad=BAD), rounds),
        "pooled": lambda: bench.federation(bench.data(clients=1), rounds),
    }


def numbers(text: str) -> list[int]:
    return sorted(int(word) for word in text.split(","))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=numbers, default=[3, 10])
    parser.add_argument("--passes", type=numbers, default=[3, 10, 30, 100], help="of the server over its examples")
    parser.add_argument("--rates", default="4e-3,1e-3", help="learning rates of the server; the first is the default")
    parser.add_argument("--only", default="server,fedavg,shuffled,pooled")
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        bench = Bench(arguments.seed, Models())
        judge = Judge(bench.models.of(load_settings({}).model_spec()), bench.data().examples("test", "sft"))
        print("| | rounds or passes | perplexity | exact | sayings: perplexity | exact | processor s |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        rates = [float(rate) for rate in arguments.rates.split(",")]
        for name, start in contestants(bench, max(arguments.rounds), max(arguments.passes), rates).items():
            if name.split()[0] not in arguments.only.split(","):
                continue
            shown, started = (arguments.passes if name.startswith("server") else arguments.rounds), time.process_time()
            for number, adapter in zip(itertools.count(1), start(), strict=False):
                if number in shown:
                    spent = time.process_time() - started
                    print(f"| {name} | {number} | {judge.line(adapter)} | {spent:.0f} |", flush=True)


if __name__ == "__main__":
    main()
