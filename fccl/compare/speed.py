"""Speed, apart from where a method ends: its validation loss against what was spent so far.

Of round r = 1 … R: L_r its validation loss, t_r the tokens that were trained until its end. Bytes are counted likewise.

    area             the mean loss over the tokens between the first round's end and the last's, by trapezoids:
                     Σ_{r>1} (t_r - t_{r-1}) (L_{r-1} + L_r) / 2  /  (t_R - t_1)
    until a loss     t_r of the first round r with L_r at most that loss
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from fccl.compare.values import RoundSummary


def area(rounds: Sequence[RoundSummary]) -> float | None:
    """The mean loss over the tokens trained. Of one round its loss; None where tokens were not counted."""
    if not rounds or any(one.tokens <= 0 for one in rounds):
        return None
    if len(rounds) == 1:
        return rounds[0].loss
    weighed = sum(after.tokens * (before.loss + after.loss) / 2 for before, after in pairwise(rounds))
    return weighed / sum(one.tokens for one in rounds[1:])


def spent_until(rounds: Sequence[RoundSummary], loss: float) -> tuple[int, int] | None:
    """Tokens trained and bytes sent and received until the validation loss is at most `loss`.

    None where it never is, or where tokens were not counted.
    """
    if any(one.tokens <= 0 for one in rounds):
        return None
    spent = zip(accumulate(one.tokens for one in rounds), accumulate(one.bytes for one in rounds), strict=True)
    return next((so_far for one, so_far in zip(rounds, spent, strict=True) if one.loss <= loss), None)
