"""Personal adapters as a setting: `fccl.training.personal` has what clients do."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fccl.specs.values import Value

Personalize = Literal["off", "finetune", "ditto"]


class PersonalSpec(Value):
    """The way in which each client makes an adapter of its own, which never leaves it.

    finetune: a phase's global adapter, trained for one round more on the client's own examples. ditto: an adapter that
    is trained beside every round, each step pulled to the round's global adapter (Li et al. 2021).
    """

    kind: Literal["finetune", "ditto"]
    pull: float = Field(default=0.0, ge=0)  # Ditto's lambda: 0 is training alone
