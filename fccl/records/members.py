"""The records of members that come and go: in a round, and in the state."""

from __future__ import annotations

from pydantic import Field

from fccl.specs import Time, Value


class Departure(Value):
    """A client that left an open federation before a round, by its own word or since its key was revoked."""

    client_id: int = Field(ge=0)
    revoked: bool = False


class KeptMembers(Value):
    """The members of an open federation, and when each client's last statement that was taken was made."""

    clients: tuple[int, ...]
    heard: dict[int, Time] = Field(default_factory=dict)
