"""The records of late updates: in a round, and in the state that awaits them."""

from __future__ import annotations

from pydantic import Field

from fccl.specs import Value


class LateUpdate(Value):
    """An update that came after its round was closed and was taken in the next: whose it is, and that round."""

    client_id: int = Field(ge=0)
    round: int = Field(ge=0)  # that it was trained for


class KeptPending(Value):
    """The clients that had not answered when the last round was closed, and the adapter that the round began with."""

    clients: tuple[int, ...]
    adapter_sha256: str
