"""A toy learner of LoRA factors, each client with its own rank: a federation whose adapter grows, in milliseconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import leading
from fccl.aggregation.rules import aggregation
from fccl.data.shards import ClientShard
from fccl.federation.rounds import Federation
from fccl.federation.state import FederationState
from fccl.messages import ClientUpdate, FitTask, StatusListener
from fccl.specs import ModelSpec
from fccl.testing.toy import TRAIN, ToyLearner, federation
from fccl.testing.toy import adapter as three_numbers

RANK = 3
MODEL = ModelSpec(name="toy", lora_r=RANK, lora_alpha=6, max_length=8)
MODULES = {"m.attn": (20, 18), "m.mlp": (16, 24)}  # fan_in, fan_out


def factors(seed: int, rank: int = RANK, b: float = 1.0) -> Adapter:
    """Random factors; `b` scales B."""
    draw, tensors = torch.Generator().manual_seed(seed), {}
    for module, (fan_in, fan_out) in MODULES.items():
        tensors[f"{module}.lora_A.weight"] = torch.randn(rank, fan_in, generator=draw)
        tensors[f"{module}.lora_B.weight"] = b * torch.randn(fan_out, rank, generator=draw)
    return Adapter(tensors)


@dataclass
class LoraLearner:
    """Moves the first directions of the task's adapter by noise from the client's seed, and by the reference's in VA
    rounds.
    """

    ranks: tuple[int, ...] = (RANK,)

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        rank = self.ranks[shard.client_id % len(self.ranks)]
        report = ToyLearner().fit(replace(task, phase="sft", reference=None, adapter=three_numbers()), shard, on_status)
        draw = torch.Generator().manual_seed(task.client_seed(shard.client_id))
        tensors = {
            name: tensor + 0.3 * torch.randn(tensor.shape, generator=draw)
            for name, tensor in leading(task.adapter, rank).tensors.items()
        }
        if task.reference is not None:
            tensors = {
                name: tensor + 0.1 * leading(task.reference, rank).tensors[name] for name, tensor in tensors.items()
            }
        return replace(report, phase=task.phase, adapter=Adapter(tensors))


def lora_federation(name: str = "exact", rule: str = "fedavg", **changes: Any) -> Federation:
    """Of toy clients, under `LORA_AGGREGATION=name`."""
    train = TRAIN.model_copy(update={"lower_ranks": name in ("svd", "exact")})
    fed = federation(aggregation=aggregation(rule, name, RANK), **changes)
    return replace(fed, model=MODEL, train={"sft": train, "va": train})


START = FederationState(0, factors(0, b=0.0))
