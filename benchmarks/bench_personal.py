"""Whom a personal adapter helps: finetune and Ditto beside the global adapter and training alone, client by client.

    python benchmarks/bench_personal.py [--alphas 0.1,1.0] [--seeds 42] [--pulls 0.01,0.1,1,10] [--share 0.2]

Quickstarts, their clients one after another in this process. The federation is the same whatever is done beside it, so
one run serves all: Ditto's adapters of every pull are trained beside it by `fccl.training.personal`, as the clients of
`fccl run --personalize ditto` do. Figures are mean losses on the examples that each client keeps apart, in nats a
response token (SFT) or a pair (VA).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass, field, replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from fccl import Adapter, ClientUpdate, FederatedRun, FitTask, load_adapter, prepare  # noqa: E402
from fccl.data.shards import ClientShard  # noqa: E402
from fccl.evaluation.own_test import trained_alone  # noqa: E402
from fccl.evaluation.validation import Validator  # noqa: E402
from fccl.messages import OwnTestTask, StatusListener  # noqa: E402
from fccl.model.loading import Models  # noqa: E402
from fccl.paths import LogPaths  # noqa: E402
from fccl.specs import PHASES, Phase  # noqa: E402
from fccl.specs.personal import PersonalSpec  # noqa: E402
from fccl.training.clients_learner import ClientsLearner  # noqa: E402
from fccl.training.personal import ditto_round, finetuned  # noqa: E402

Losses = Mapping[str, float]


@dataclass
class Dittoing:
    """Trains as our own learner does, and beside it Ditto's adapters of several pulls."""

    learner: ClientsLearner
    pulls: Sequence[float]
    own: dict[tuple[float, Phase, int], Adapter] = field(default_factory=dict)
    tasks: dict[Phase, list[FitTask]] = field(default_factory=dict)

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        """The learner's own update."""
        update = self.learner.fit(task, shard, on_status)
        known = self.tasks.setdefault(task.phase, [])
        if not known or known[-1].round != task.round:
            known.append(task)
        for pull in self.pulls:
            key = pull, task.phase, shard.client_id
            spec = task.train.model_copy(update={"personal": PersonalSpec(kind="ditto", pull=pull)})
            start = self.own.get(key, task.adapter)
            self.own[key] = ditto_round(self.learner, replace(task, train=spec), shard, start)
        return update


def measured(alpha: float, seed: int, pulls: Sequence[float], share: float) -> Iterator[tuple[Phase, int, int, Losses]]:
    """A row for each client of each phase: phase, client, examples kept apart, and the loss of each adapter."""
    data = prepare(num_clients=3, non_iid_alpha=alpha, seed=seed, client_test_share=share)
    models = Models()
    learner = Dittoing(ClientsLearner(models), pulls)
    run = FederatedRun(data, learner=learner, keep_updates_mb=0, threads=1)
    run.train()
    logs = LogPaths(run.log_dir)
    results = {"sft": load_adapter(logs.global_sft), "va": load_adapter(logs.global_final)}
    for phase in PHASES:
        first, last = learner.tasks[phase][0], learner.tasks[phase][-1]
        rates = tuple(task.train.learning_rate for task in learner.tasks[phase])
        about = last.run_id, last.round, phase, results[phase], first.adapter, last.reference
        request = OwnTestTask(*about, last.model, last.train, last.seed, rates, 16)
        for client in range(3):
            shard = data.shard(client)
            adapters = {
                "base": models.of(last.model).initial_adapter(0),
                "alone": trained_alone(learner.learner, request, shard),
                "global": request.adapter,
                "finetune": finetuned(learner.learner, request, shard),
                **{f"Ditto {pull:g}": learner.own[pull, phase, client] for pull in pulls},
            }
            preference, tests = last.train.preference, (shard.test_sft, shard.test_va)
            score = Validator(models.of(last.model), *tests, preference=preference, batch_size=request.batch_size)
            losses = {name: score(phase, each, last.reference).loss for name, each in adapters.items()}
            yield phase, client, len(shard.tests_of(phase)), losses


def numbers(text: str) -> list[float]:
    return [float(word) for word in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alphas", type=numbers, default=[0.1, 1.0], help="Dirichlet concentrations")
    parser.add_argument("--seeds", type=numbers, default=[42.0])
    parser.add_argument("--pulls", type=numbers, default=[0.01, 0.1, 1.0, 10.0], help="values of DITTO_LAMBDA")
    parser.add_argument("--share", type=float, default=0.2, help="CLIENT_TEST_SHARE")
    arguments = parser.parse_args()
    names = ["base", "alone", "global", "finetune", *(f"Ditto {pull:g}" for pull in arguments.pulls)]
    print(f"| alpha | seed | phase | client | examples | {' | '.join(names)} |")
    print(f"|---|---|---|---|---|{'---:|' * len(names)}", flush=True)
    for alpha in arguments.alphas:
        for seed in map(int, arguments.seeds):
            with tempfile.TemporaryDirectory() as folder, chdir(folder):
                for phase, client, examples, losses in measured(alpha, seed, arguments.pulls, arguments.share):
                    cells = " | ".join(f"{losses[name]:.3f}" for name in names)
                    print(f"| {alpha:g} | {seed} | {phase} | {client} | {examples} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
