"""An audit, as values: `LOG_DIR/audit.json`. Attacks on what a federation releases, each beside chance."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fccl.records.evaluation import Estimate
from fccl.specs import Value, exactly


class Exposure(Value):
    """The exposure of canaries that were planted so often (Carlini et al. 2019): log2(n) - log2(rank), in bits, by rank
    among n - 1 that were not. Chance is the mean of a canary that was never planted.
    """

    repeats: int = Field(ge=1)
    mean: Estimate
    chance: float


class Membership(Value):
    """Members told from examples that were held out: chance is an AUC of 0.5, and a hundredth of the members."""

    auc: Estimate  # DeLong et al. 1988
    found: float = Field(ge=0, le=1)  # share of the members at 1 % false positives
    members: int = Field(ge=1)
    others: int = Field(ge=1)


class Attack(Value):
    """One attack on one thing that is released."""

    target: str  # such as "released adapter" or "update of round 1"
    by: str  # such as "loss" or "gradient signs"
    membership: Membership
    exposures: tuple[Exposure, ...] = ()


class AuditedRun(Value):
    """A federation under one set of protections, and the attacks on it."""

    name: str  # of the protections; "none"
    settings: dict[str, str] = Field(default_factory=dict)  # that protect, with their values
    attacks: tuple[Attack, ...]
    closed: tuple[str, ...] = ()  # attacks that could not be tried, with the reason
    loss: float | None = None  # of the released adapter on the validation split: what protection costs


class Audit(Value):
    """All of it."""

    version: Annotated[int, exactly(1)] = 1
    created: float
    client: int = Field(ge=0)  # whose data was audited
    canaries: int = Field(ge=1)  # planted, of each number of repeats
    unused: int = Field(ge=1)
    rounds: int = Field(ge=1)
    settings: dict[str, str]
    runs: tuple[AuditedRun, ...]
