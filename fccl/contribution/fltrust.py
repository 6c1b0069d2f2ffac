"""FLTrust (Cao et al. 2021): each change is trusted as far as it points where the server's own update does.

g_0 = the server's change: one epoch of the clients' training on the `learn` examples, from the round's adapter x.

    TS_i = max(0, cos(g_i, g_0)),   g̃_i = (‖g_0‖ / ‖g_i‖) g_i,   x' = x + alpha sum_i TS_i g̃_i / sum_i TS_i

Where nobody is trusted nothing moves. Weights are TS_i / sum TS, and alpha ‖g_0‖ / ‖g_i‖ is the factor on each change
(`fccl.contribution.stretch`), so under `AGGREGATION=fedavg` the result is the paper's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fccl.adapters.adapter import Adapter
from fccl.aggregation.vectors import flat, one_thread
from fccl.contribution.combinations import in_client_order
from fccl.contribution.protocol import LearnLoss, Weighing
from fccl.contribution.reported import proportional
from fccl.messages import ClientUpdate, FitTask
from fccl.records.run import Verification


@dataclass(frozen=True)
class FLTrust:
    """Trust by the cosine with what the server learns itself; `step` is alpha, the paper's global learning rate."""

    loss: LearnLoss
    step: float = 1.0

    @in_client_order
    def weigh(self, task: FitTask, updates: Sequence[ClientUpdate]) -> Weighing:
        """One epoch of training on the server's examples; every update is loaded once."""
        started = time.monotonic()
        own = self.loss.learnt(task)
        cosines, ratios = compared(task, updates, own.with_frozen(task.trained).adapter.load())
        trust = [max(0.0, cosine) for cosine in cosines]
        verification = Verification(examples=own.contribution.num_samples, passes=1, seconds=time.monotonic() - started)
        if not any(trust):
            equal = (1 / len(updates),) * len(updates)
            return Weighing(equal, cosines, verification, stretch=(0.0,) * len(updates))
        stretch = tuple(self.step * ratio if cosine > 0 else 0.0 for cosine, ratio in zip(cosines, ratios, strict=True))
        return Weighing(proportional(trust), cosines, verification, stretch=stretch)


@one_thread()
def compared(
    task: FitTask, updates: Sequence[ClientUpdate], learnt: Adapter
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """cos(g_i, g_0) and ‖g_0‖ / ‖g_i‖ of every update; 0 and 0 where it, or the server, did not move."""
    start = flat(task.trained).double()  # (d,)
    own = flat(learnt).double().sub_(start)  # (d,): g_0
    length = float(torch.linalg.vector_norm(own))
    cosines, ratios = [], []
    for update in updates:
        change = flat(update.adapter.load()).double().sub_(start)  # (d,): g_i
        norm = float(torch.linalg.vector_norm(change))
        moved = norm > 0 and length > 0
        cosines.append(float(own @ change) / (length * norm) if moved else 0.0)
        ratios.append(length / norm if moved else 0.0)
    return tuple(cosines), tuple(ratios)
