"""LoraHub's search (Huang et al. 2023): coefficients in [-1.5, 1.5], without gradients, on the server's examples.

    min over c of L(x + sum_i c_i (u_i - x)) + alpha sum_i |c_i|

The paper searches with Nevergrad's NGOpt. Here it is a (1+1) evolution strategy with the one-fifth rule (Rechenberg
1973): c' = clip(c + sigma z), z normal. A c' that is no worse is kept and sigma grows by 1.5; else sigma shrinks by
1.5^(1/4). It starts from FedAvg's weights; the paper starts from 0, which is the round's adapter here. Draws have the
task's seed.

The paper combines whole LoRA modules, so its origin is 0; here it is x.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fccl.contribution.adam import Numbers
from fccl.contribution.combinations import Combinations, in_client_order
from fccl.contribution.protocol import LearnLoss, Weighing
from fccl.contribution.stretch import weights_and_stretch
from fccl.messages import ClientUpdate, FitTask
from fccl.specs import named_seed

LIMIT = 1.5  # of a coefficient's size, as in the paper
WIDTH = 0.3  # sigma of the first step: a tenth of the range
GROWTH = 1.5  # of sigma after a success; a failure takes back a fourth of it, so one success in five keeps it


@dataclass(frozen=True)
class LoraHub:
    """`steps` losses in all; `penalty` is alpha, 0.05 in the paper, as are 40 steps."""

    loss: LearnLoss
    steps: int = 40
    penalty: float = 0.05

    @in_client_order
    def weigh(self, task: FitTask, updates: Sequence[ClientUpdate]) -> Weighing:
        """`steps` forward passes. Scores are the coefficients; FedAvg's where no loss is finite."""
        mix = Combinations(self.loss, task, updates)
        draw = np.random.default_rng(named_seed(task.seed, "lorahub", task.phase, task.round))
        best, width = np.array(mix.by_samples), WIDTH  # (n,)
        path = [mix.at(best.tolist())]
        value = path[0] + self._cost(best)
        for _ in range(self.steps - 1):
            tried = np.clip(best + width * draw.standard_normal(len(best)), -LIMIT, LIMIT)
            loss = mix.at(tried.tolist())
            better = math.isfinite(loss) and loss + self._cost(tried) <= value
            if better:
                best, value = tried, loss + self._cost(tried)
                path.append(loss)
            width *= GROWTH if better else GROWTH**-0.25
        weights, stretch = weights_and_stretch(best.tolist())
        return mix.weighing(weights, best.tolist(), stretch, path, len(path) - 1)

    def _cost(self, coefficients: Numbers) -> float:
        return self.penalty * float(np.abs(coefficients).sum())
