"""The privacy that a run has spent, as its records say it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fccl.specs import Value


class ClientSpent(Value):
    """The privacy that one client has spent in a run so far."""

    client_id: int = Field(ge=0)
    releases: int = Field(ge=0)
    epsilon: float = Field(ge=0)  # at the record's delta


class RoundPrivacy(Value):
    """The differential privacy of a round, and what is spent after it. Neighbours differ in one `unit`.

    With noise at the server the record says nothing of a single client: every client has spent the same. Where the unit
    is the example, `sampling` is that of a step's examples, and ε is that of a client's examples.
    """

    where: Literal["client", "server"]
    clip: float  # of this round
    noise: float  # multiplier: the noise's standard deviation over the clip
    sampling: Literal["fixed", "poisson"]
    amplified: bool  # sampling was counted: the draw is a secret, of the server or of each client
    accountant: Literal["PLD", "RDP"]
    relation: Literal["add or remove one", "replace one"]
    delta: float
    budget: float  # DP_EPSILON
    epsilon: float = Field(ge=0)  # of the client that has spent most
    releases: int = Field(ge=0)  # of that client
    clients: tuple[ClientSpent, ...] = ()  # where they differ
    unit: Literal["client", "example"] = "client"
