"""Standing: what rounds say of each client, gathered over a phase and fading.

A round's word on a client is Student's t, at most ±`MOST`. Over the rounds that the client took part in,

    F ← f F + 1,   S ← f S + t_r,   mean = S / F,   f = `FADES`

The mean has at most the spread of one t, however much rounds repeat each other. They do: each draws from the same
examples, and topics are always the same. So many rounds are no stronger evidence here than one, only steadier.

Guilt is a standing that never falls below 0. A client is `out` once its mean is `SURE`, and comes back when nothing of
its guilt is left. A round in which a client is absent changes nothing of it. `docs/contribution.md` says what the rule
`tempered` makes of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fccl.contribution.adam import Numbers

FADES = 0.9  # what is left of a round's word after another: half of it after 6.6 rounds
MOST = 4.0  # of one round's t: no single round says more, for a client or against it
SURE = 2.0  # the mean guilt from which a client is out


def faded(totals: Numbers, ratios: Numbers) -> Numbers:
    """S after another round has said these t: (n,).

    >>> faded(np.array([1.0, 0.0]), np.array([2.0, -9.0])).tolist()
    [2.9, -4.0]
    """
    return np.asarray(FADES * totals + np.clip(ratios, -MOST, MOST))


@dataclass(frozen=True, eq=False)
class Guilt:
    """S, F and who is out, of n clients: (n,) each. A round says t > 0 against a client.

    >>> guilt = Guilt.unknown(2).after(np.array([2.5, 1.0]))
    >>> guilt.mean.tolist(), guilt.out.tolist()
    ([2.5, 1.0], [True, False])
    """

    totals: Numbers
    rounds: Numbers
    out: NDArray[np.bool_]

    @classmethod
    def unknown(cls, clients: int) -> Guilt:
        """Of clients that nothing is known of."""
        return cls(np.zeros(clients), np.zeros(clients), np.zeros(clients, dtype=bool))

    @property
    def mean(self) -> Numbers:
        """S / F: (n,), from 0 to `MOST`; 0 where nothing is known."""
        return np.asarray(self.totals / np.maximum(self.rounds, 1.0))

    def after(self, ratios: Numbers) -> Guilt:
        """Once another round has said these t, (n,)."""
        totals, rounds = np.maximum(faded(self.totals, ratios), 0.0), FADES * self.rounds + 1
        return Guilt(totals, rounds, (self.out & (totals > 0)) | (totals >= SURE * rounds))
