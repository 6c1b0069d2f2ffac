"""`rejected/`: what the exchange directory refused, and why."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from fccl.specs import ClientId, Round, Time, Value

MAX_REJECTION_REASON = 1000  # characters


class Rejection(Value):
    """`<stamp>_reason.json` in `rejected/`: what was refused, and why."""

    time: Time
    run_id: str
    round: Round
    client_id: ClientId | None  # whose answer the file names said it was
    # their names in the exchange directory; in `rejected/` each begins with the stamp
    files: tuple[Annotated[str, StringConstraints(max_length=255)], ...]
    reason: Annotated[str, StringConstraints(max_length=MAX_REJECTION_REASON)]
