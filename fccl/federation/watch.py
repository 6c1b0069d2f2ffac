"""Watching a phase on the server's validation split: when it has stopped gaining, and which of its rounds was best.

Nothing else than the validation split has a say here: not the clients' losses, and never the test split.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fccl.adapters.adapter import Adapter
from fccl.records.run import ExampleLosses, Watched
from fccl.specs import Phase, RoundPlan

LossByExample = Callable[[Phase, Adapter, Adapter | None], ExampleLosses]  # of an adapter, under a reference


@dataclass(frozen=True, eq=False)
class Best:
    """The round of a phase with the lowest validation loss so far; of two equal ones the earlier."""

    round: int
    loss: float
    adapter: Adapter


@dataclass(frozen=True, eq=False)
class Watch:
    """Knowledge of the open phase. `anchor` has the losses of the last round that gained beyond its noise, at first
    those of the adapter that the phase began with; `waited` counts the rounds since. `best` is kept under
    RESULT_ROUND=best alone, `anchor` under PATIENCE alone.
    """

    anchor: ExampleLosses | None = None
    waited: int = 0
    best: Best | None = None

    def after(
        self, plan: RoundPlan, number: int, adapter: Adapter, loss: float | None, losses: ExampleLosses | None
    ) -> tuple[Watch, Watched | None]:
        """Knowledge after a round of this number, with its loss on the validation split, by example under PATIENCE; and
        what its record says. A round without a loss neither gains nor is best.
        """
        if not plan.watches:
            return self, None
        best = self.best
        if plan.result_round == "best" and loss is not None and (best is None or loss < best.loss):
            best = Best(number, loss, adapter)
        found = None if losses is None or self.anchor is None else gain_of(self.anchor, losses)
        gained = found is None or found.gain > found.noise
        anchor, waited = (losses or self.anchor, 0) if gained else (self.anchor, self.waited + 1)
        return Watch(anchor, waited, best), Watched(
            gain=found.gain if found else None,
            noise=found.noise if found and math.isfinite(found.noise) else None,
            waited=waited,
            best_round=best.round if best else None,
        )


class Gain(NamedTuple):
    """A fall of the mean loss, and its standard error."""

    gain: float
    noise: float


def gain_of(before: ExampleLosses, after: ExampleLosses) -> Gain:
    """By how much the mean loss fell, and the standard error of that, paired by example.

    d_i is the fall of example i's loss, t_i its units: response tokens, or 1 of a pair. The gain is
    g = Σ d_i / Σ t_i. Its standard error is that of a ratio of means: sqrt(n / (n - 1) Σ (d_i - g t_i)²) / Σ t_i. Of
    one example it is infinite.
    """
    falls = np.subtract(before.losses, after.losses)  # (n,) nats
    units = np.asarray(before.units, dtype=np.float64)  # (n,)
    gain = float(falls.sum() / units.sum())
    count = len(falls)
    if count < 2:
        return Gain(gain, math.inf)
    spread = float(np.square(falls - gain * units).sum())
    return Gain(gain, math.sqrt(count / (count - 1) * spread) / float(units.sum()))
