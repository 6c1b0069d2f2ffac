"""Attacks: the changes that a hostile client makes to its own data, its own update and its own report. Pure: the same
honest update, the same hostile one.

With u the honest update and x the adapter that the round starts from:

    free_rider        x, having done nothing
    free_rider_noise  x + noise, so that it is not the very adapter it was given
    sign_flip         x - (u - x) = 2x - u
    scaling           x + 10 (u - x)
    reversal          x - 3 (u - x)
    sacrifice         10⁴ everywhere, to be left out or to make all others look alike, for the good of whoever sends a
                      reversal
    loss_forger       u, with a tiny loss reported
    dp_noise          u + Gaussian noise as long as u - x: no attack, an honest client that protects its data
    hidden_flip       trained from 2x - u on the client's own examples: it scores well on examples like those, and
                      carries a sign flip behind it
    backdoor, unsafe  trained on data with poison in it (`fccl.compare.poison`)

A client sees here its own data and the adapter it was sent, nothing else; `fccl.compare.collusion` has those that see
the updates of others. Every one of them reports what an honest client with its data would: nothing but the update gives
it away (a forger's loss alone is its own).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from fccl.adapters.adapter import Adapter
from fccl.compare.poison import poisoned
from fccl.compare.values import Attack
from fccl.data.shards import ClientShard
from fccl.errors import TrainingError
from fccl.messages import ClientUpdate, FitTask, Learner, StatusListener
from fccl.specs import named_seed

SCALE = 10.0
REVERSAL = -3.0
FACTORS: Mapping[Attack, float] = {"sign_flip": -1.0, "reversal": REVERSAL, "scaling": SCALE}
ABSURD = 1e4  # less than any number may be, and far from what training comes to
FORGED_LOSS = 0.01  # nats
NOISE = 1e-3  # norm of a free rider's noise over the norm of the adapter that it hides
# Norm of the privacy noise over that of the update. Noise of norm z C √d for d numbers clipped to C: with an update of
# 100,000 numbers a multiplier z of 0.003, weaker than any ε usually asked for. More would be noise alone.
PRIVACY_NOISE = 1.0


@dataclass(frozen=True)
class HostileLearner:
    """Trains as `learner` does; the clients in `attacks` then change what they send."""

    learner: Learner
    attacks: Mapping[int, Attack]

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        """The update as its client sends it. Raises `TrainingError` when an attack overflows."""
        attack = self.attacks.get(shard.client_id, "none")
        update = self._trained(task, shard, attack, on_status)
        if attack != "hidden_flip":
            return attacked(attack, task, update)
        flipped = replace(task, adapter=_moved(task.adapter, update.adapter.load(), FACTORS["sign_flip"]))
        return replace(update, adapter=self.learner.fit(flipped, shard, on_status).adapter)

    def _trained(self, task: FitTask, shard: ClientShard, attack: Attack, on_status: StatusListener) -> ClientUpdate:
        """Trained on the shard, or on a poisoned one; the rows that poison adds are not reported."""
        data = poisoned(attack, shard)
        update = self.learner.fit(task, data, on_status)
        if data is shard:
            return update
        said = {"num_samples": len(shard.of(task.phase))}
        return replace(update, contribution=update.contribution.model_copy(update=said))


def attacked(attack: Attack, task: FitTask, honest: ClientUpdate) -> ClientUpdate:
    """The honest update as this attack changes it; as it is where the attack is on data or of several clients."""
    if attack == "loss_forger":
        return replace(honest, contribution=honest.contribution.model_copy(update={"avg_loss": FORGED_LOSS}))
    if attack == "free_rider":
        return replace(honest, adapter=task.adapter)
    if attack == "sacrifice":
        absurd = {name: torch.full_like(tensor, ABSURD) for name, tensor in task.adapter.tensors.items()}
        return replace(honest, adapter=Adapter(absurd))
    if attack == "free_rider_noise":
        size, seed = NOISE * _norm(task.adapter), named_seed(task.client_seed(honest.client_id), "free rider")
        return replace(honest, adapter=_with_noise(task.adapter, size, seed))
    if attack == "dp_noise":
        own, seed = honest.adapter.load(), named_seed(task.client_seed(honest.client_id), "privacy")
        return replace(honest, adapter=_with_noise(own, PRIVACY_NOISE * own.distance(task.adapter), seed))
    if attack in FACTORS:
        return replace(honest, adapter=_moved(task.adapter, honest.adapter.load(), FACTORS[attack]))
    return honest


def _moved(start: Adapter, update: Adapter, factor: float) -> Adapter:
    """start + factor · (update - start), in float64, rounded once."""
    tensors = {}
    for name, origin in start.tensors.items():
        moved = (origin.double() + factor * (update.tensors[name].double() - origin.double())).float()
        if not bool(torch.isfinite(moved).all()):
            raise TrainingError(f"{name} overflows")
        tensors[name] = moved
    return Adapter(tensors)


def _norm(adapter: Adapter) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in adapter.tensors.values()))


def _with_noise(adapter: Adapter, norm: float, seed: int) -> Adapter:
    """The adapter and Gaussian noise of this norm."""
    draw = torch.Generator().manual_seed(seed)
    noise = {
        name: torch.randn(each.shape, generator=draw, dtype=torch.float64) for name, each in adapter.tensors.items()
    }
    size = math.sqrt(sum(float(part.square().sum()) for part in noise.values()))
    return Adapter(
        {name: (each.double() + norm / size * noise[name]).float() for name, each in adapter.tensors.items()}
    )
