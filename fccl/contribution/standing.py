"""Standing: what a round says of each client, gathered over rounds and fading.

A round's word on a client is Student's t, about standard normal where there is nothing to say. With t_r of the rounds
that the client took part in,

    V ← f² V + 1,   S ← max(f S + t_r, -credit √V),   z = S / √V,   f = `FADES`

z has about the same spread as one t, however many rounds there were: the sum of what fades is measured by its own
noise. A client whose t is the same in every round comes to 4.4 times that t. With a finite credit a good name counts
for no more than that. A round in which a client is absent changes nothing of it. `docs/contribution.md` says what the
rule `tempered` makes of z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fccl.contribution.adam import Numbers

FADES = 0.9  # what is left of a round's word after another: half of it after 6.6 rounds
MOST = 4.0  # of one round's t: no single round says more, for a client or against it


@dataclass(frozen=True, eq=False)
class Standing:
    """S and V of n clients, (n,) both. All 0: nothing is known.

    >>> Standing.unknown(2).after(np.array([1.5, -3.0]), credit=2.0).z.tolist()
    [1.5, -2.0]
    """

    totals: Numbers
    rounds: Numbers

    @classmethod
    def unknown(cls, clients: int) -> Standing:
        """Of clients that nothing is known of."""
        return cls(np.zeros(clients), np.zeros(clients))

    @property
    def z(self) -> Numbers:
        """The standard errors by which all rounds so far speak for t > 0: (n,); 0 where nothing is known."""
        return np.asarray(self.totals / np.sqrt(np.where(self.rounds > 0, self.rounds, 1.0)))

    def after(self, ratios: Sequence[float] | Numbers, credit: float = math.inf) -> Standing:
        """Once another round has said these t, (n,)."""
        rounds = FADES**2 * self.rounds + 1
        totals = FADES * self.totals + np.clip(ratios, -MOST, MOST)
        return Standing(np.maximum(totals, -credit * np.sqrt(rounds)), rounds)
