"""The server's side of an exchange directory as a value."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from fccl.specs.rounds import LateUpdates
from fccl.specs.values import Value


class ExchangeSpec(Value):
    """The server's settings for an exchange directory."""

    num_clients: int = Field(ge=1)
    quorum: int = Field(ge=1)  # with fewer good updates the round is tried again
    retries: int = Field(ge=0)  # how often
    timeout_s: float = Field(gt=0)  # how long an attempt waits for clients that live
    stale_s: float = Field(gt=0)  # a heartbeat that is older means that the client is dead
    keep_rounds: int = Field(ge=0)  # finished rounds whose files stay
    originals: tuple[int, ...] = ()  # clients that know only the original files
    watch: Literal["auto", "notify", "poll"] = "auto"
    late: LateUpdates = "drop"
    open: bool = False  # clients may join and leave between rounds

    @model_validator(mode="after")
    def _late_answers_stay(self) -> Self:
        if self.late == "next" and self.keep_rounds == 0:
            raise ValueError("LATE_UPDATES=next needs KEEP_ROUNDS >= 1: late answers lie among the last round's files")
        return self

    @model_validator(mode="after")
    def _originals_are_clients(self) -> Self:
        if (last := max(self.originals, default=0)) >= self.num_clients:
            raise ValueError(
                f"original_clients names client {last}, num_clients is {self.num_clients}, and the first is 0"
            )
        return self
