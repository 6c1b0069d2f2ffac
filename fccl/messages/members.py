"""Statements of clients on their membership of a federation that is open."""

from __future__ import annotations

from typing import Literal

from fccl.specs import ClientId, Time, Value

Move = Literal["join", "leave", "revoked"]  # revoked: the server's keys say so, and no client


class Statement(Value):
    """A client's newest word on its membership, known to be the client's. Of two the later counts."""

    client_id: ClientId
    move: Move
    time: Time  # by the client's clock
