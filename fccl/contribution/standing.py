"""Standing: what a round says of each client, gathered over rounds and fading.

A round's word on a client is Student's t, about standard normal where there is nothing to say. With t_r of the rounds
that the client took part in,

    V ← f² V + 1,   S ← max(f S + t_r, -`CREDIT` √V),   z = S / √V,   f = `FADES`

z has about the same spread as one t, however many rounds there were: the sum of what fades is measured by its own
noise. A client whose t is the same in every round, and above 0, comes to 4.4 times that t. A good name counts for
`CREDIT` at most: in the first rounds everybody leads downhill, and who turns must be seen to turn. A round in which a
client is absent changes nothing of it. `docs/contribution.md` says what the rule `tempered` makes of z.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fccl.contribution.adam import Numbers
from fccl.contribution.protocol import Memory

FADES = 0.9  # what is left of a round's word after another: half of it after 6.6 rounds
MOST = 4.0  # of one round's t: no single round says more, for a client or against it
CREDIT = 2.0  # z is at least minus this


def after(memory: Memory, clients: Sequence[int], ratios: Numbers) -> Memory:
    """The memory once these clients have these t, (n,); of all others as it was.

    >>> after({}, [3], np.array([1.5]))
    {3: (1.5, 1.0)}
    """
    said = np.clip(ratios, -MOST, MOST).tolist()
    return {**memory, **{client: _faded(memory.get(client), t) for client, t in zip(clients, said, strict=True)}}


def standing(memory: Memory, clients: Sequence[int]) -> Numbers:
    """z of each of these clients, (n,); 0 of one that nothing is known of.

    >>> standing({3: (1.5, 1.0)}, [3, 4]).tolist()
    [1.5, 0.0]
    """
    found = [_known(memory.get(client)) for client in clients]
    return np.array([total / math.sqrt(rounds) if rounds else 0.0 for total, rounds in found])


def _faded(before: Sequence[float] | None, t: float) -> tuple[float, float]:
    total, rounds = _known(before)
    rounds = FADES**2 * rounds + 1
    return max(FADES * total + t, -CREDIT * math.sqrt(rounds)), rounds


def _known(kept: Sequence[float] | None) -> tuple[float, float]:
    """S and V; both 0 where nothing is known."""
    total, rounds = kept or (0.0, 0.0)
    return total, rounds
