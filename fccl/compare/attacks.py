"""Attacks: the changes that a hostile client makes to its own update and its own report. Pure: the same honest update,
the same hostile one.

With u the honest update and x the adapter that the round starts from:

    free_rider         x, having done nothing          free_rider_noise   x + noise, so that it is not the very adapter
    it was given sign_flip          x - (u - x) = 2x - u            scaling            x + 10 (u - x) loss_forger
    u, with a tiny loss reported     reversal           x - 3 (u - x) sacrifice          10⁴ everywhere, to be left out
    or to make all others look alike, for the good of whoever sends a reversal

Every one of them reports what an honest client with its data would: nothing but the update gives it away (a forger's
loss alone is its own).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from fccl.adapters.adapter import Adapter
from fccl.compare.values import Attack
from fccl.data.shards import ClientShard
from fccl.errors import TrainingError
from fccl.messages import ClientUpdate, FitTask, Learner, StatusListener
from fccl.specs import named_seed

SCALE = 10.0
REVERSAL = -3.0
ABSURD = 1e4  # less than any number may be, and far from what training comes to
FORGED_LOSS = 0.01  # nats
NOISE = 1e-3  # norm of a free rider's noise over the norm of the adapter that it hides


@dataclass(frozen=True)
class HostileLearner:
    """Trains as `learner` does; the clients in `attacks` then change what they send."""

    learner: Learner
    attacks: Mapping[int, Attack]

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        """The update as its client sends it. Raises `TrainingError` when an attack overflows."""
        return attacked(self.attacks.get(shard.client_id, "none"), task, self.learner.fit(task, shard, on_status))


def attacked(attack: Attack, task: FitTask, honest: ClientUpdate) -> ClientUpdate:
    """The honest update as this attack changes it."""
    if attack == "none":
        return honest
    if attack == "loss_forger":
        return replace(honest, contribution=honest.contribution.model_copy(update={"avg_loss": FORGED_LOSS}))
    if attack == "free_rider":
        return replace(honest, adapter=task.adapter)
    if attack == "free_rider_noise":
        return replace(
            honest, adapter=_with_noise(task.adapter, named_seed(task.client_seed(honest.client_id), "free rider"))
        )
    if attack == "sacrifice":
        return replace(
            honest,
            adapter=Adapter({name: torch.full_like(tensor, ABSURD) for name, tensor in task.adapter.tensors.items()}),
        )
    factors = {"sign_flip": -1.0, "reversal": REVERSAL, "scaling": SCALE}
    return replace(honest, adapter=_moved(task.adapter, honest.adapter.load(), factors[attack]))


def _moved(start: Adapter, update: Adapter, factor: float) -> Adapter:
    """start + factor · (update - start), in float64, rounded once."""
    tensors = {}
    for name, origin in start.tensors.items():
        moved = (origin.double() + factor * (update.tensors[name].double() - origin.double())).float()
        if not bool(torch.isfinite(moved).all()):
            raise TrainingError(f"{name} overflows")
        tensors[name] = moved
    return Adapter(tensors)


def _with_noise(start: Adapter, seed: int) -> Adapter:
    """start + Gaussian noise whose norm is `NOISE` times that of `start`."""
    draw = torch.Generator().manual_seed(seed)
    noise = {
        name: torch.randn(tensor.shape, generator=draw, dtype=torch.float64) for name, tensor in start.tensors.items()
    }
    size = sum(float(part.square().sum()) for part in noise.values()) ** 0.5
    norm = sum(float(tensor.double().square().sum()) for tensor in start.tensors.values()) ** 0.5
    return Adapter(
        {name: (tensor.double() + NOISE * norm / size * noise[name]).float() for name, tensor in start.tensors.items()}
    )
