"""When a federation has stopped gaining: the number of rounds of the second regime.

FedAvg is flat after a round once its last `PATIENCE` rounds together have not lowered the best validation loss before
them by the least difference that counts (1 % of the perplexity). A scenario and seed has as many rounds as FedAvg of
its honest clients needs until it is flat, at most `MOST_ROUNDS`, and every method has that many. The honest clients
decide, so that no attack decides how long a comparison is.
"""

from __future__ import annotations

from collections.abc import Sequence

from fccl.records.comparison import LEAST_DIFFERENCE

PATIENCE = 3
MOST_ROUNDS = 24


def is_flat(losses: Sequence[float]) -> bool:
    """Whether validation losses, one a round, have stopped falling.

    >>> is_flat([3.0, 2.0, 1.0]), is_flat([3.0, 2.0, 1.999, 2.1, 1.998])
    (False, True)
    """
    before, last = losses[:-PATIENCE], losses[-PATIENCE:]
    return bool(before) and min(before) - min(last) < LEAST_DIFFERENCE
