"""A securely aggregated round, as its record says it: nothing of a single client but that it took part."""

from __future__ import annotations

from pydantic import Field

from fccl.specs import ClientId
from fccl.specs.values import Value


class SecureRound(Value):
    """The secure sum of a round: of `clients`, by the help of at least `threshold` of them."""

    clients: tuple[ClientId, ...]  # whose updates are in the sum
    dropped: tuple[ClientId, ...] = ()  # that gave shares and no update: their masks were taken off by shares
    false_shares: tuple[ClientId, ...] = ()  # that gave a false share of another's secret, which was left out
    cohort: int = Field(ge=2)  # clients that gave keys
    threshold: int = Field(ge=2)
    bound: float = Field(gt=0)  # of a number of a change
    most: int = Field(ge=1)  # examples that a client counts for at most; 1: all count alike
    bits: int = Field(ge=0)  # after the binary point
