"""The toy learner: three numbers in the place of a language model, so that a whole federation runs in milliseconds.

from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.transports.in_process import InProcessTransport

results = list(federation(clients=4, rounds=2).run(START, InProcessTransport(ToyLearner(), shard)))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from fccl.adapters.adapter import Adapter
from fccl.aggregation.fedavg import FedAvg
from fccl.aggregation.protocol import Aggregation
from fccl.contribution.protocol import Weigher
from fccl.contribution.reported import ContributionRule
from fccl.data.examples import PreferencePair, SftExample
from fccl.data.shards import ClientShard
from fccl.errors import TrainingError
from fccl.federation.rounds import Federation
from fccl.federation.state import FederationState
from fccl.messages import ClientUpdate, FitTask, StatusListener
from fccl.records.run import Contribution, TrainingReport
from fccl.specs import ModelSpec, RoundPlan, TrainSpec

MODEL = ModelSpec(name="toy", lora_r=1, lora_alpha=1, max_length=8)
TRAIN = TrainSpec(epochs=1, learning_rate=0.1, batch_size=1, warmup=0, max_grad_norm=1)


def adapter(*numbers: float) -> Adapter:
    """One tensor `w` of these numbers; three zeros without any."""
    return Adapter({"w": torch.tensor(numbers or (0.0, 0.0, 0.0))})


def shard(client_id: int) -> ClientShard:
    """Client i holds i + 1 instructions, so that no two clients have the same number of samples, and one pair."""
    sft = tuple(SftExample(f"say {client_id} {n}", str(client_id)) for n in range(client_id + 1))
    return ClientShard(client_id, sft, (PreferencePair("say", "yes", "no"),))


@dataclass
class ToyLearner:
    """Moves three numbers towards the client's own, with noise from the client's seed. `broken` clients fail."""

    broken: frozenset[int] = frozenset()
    errors: Mapping[int, BaseException] = field(default_factory=dict)  # what else is raised, by client
    calls: list[tuple[int, int]] = field(default_factory=list)

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        self.calls.append((task.round, shard.client_id))
        if shard.client_id in self.broken:
            raise TrainingError("the loss is not finite")
        if shard.client_id in self.errors:
            raise self.errors[shard.client_id]
        on_status(task.status(shard.client_id, "training"))
        draw = torch.Generator().manual_seed(task.client_seed(shard.client_id))
        target = torch.full((3,), float(shard.client_id)) + torch.randn(3, generator=draw)
        tensors = {name: tensor + 0.5 * (target - tensor) for name, tensor in task.adapter.tensors.items()}
        control = None
        if task.corrections is not None:
            told = task.corrections.of(shard.client_id).tensors
            tensors = {name: tensor - 0.5 * told[name] for name, tensor in tensors.items()}
            control = Adapter({name: tensor - target for name, tensor in task.adapter.tensors.items()})
        on_status(task.status(shard.client_id, "done"))
        return task.update(
            shard.client_id,
            adapter=Adapter(tensors),
            contribution=Contribution(avg_loss=1.0 + shard.client_id, num_samples=len(shard.sft), seconds=0.0),
            report=TrainingReport(tokens=3, tokens_per_second=1.0, steps=1),
            control=control,
        )


def federation(
    clients: int = 4,
    rounds: int = 2,
    rule: Weigher | None = None,
    aggregation: Aggregation | None = None,
    per_round: int = 0,
    **changes: Any,
) -> Federation:
    """A federation of toy clients; `changes` are fields of its `RoundPlan`. `per_round` of 0 takes all clients."""
    plan = RoundPlan(fed_rounds=rounds, num_clients=clients, clients_per_round=per_round or clients, seed=7, **changes)
    return Federation(
        "run", plan, MODEL, {"sft": TRAIN, "va": TRAIN}, rule or ContributionRule(), aggregation or FedAvg()
    )


START = FederationState(0, adapter())
