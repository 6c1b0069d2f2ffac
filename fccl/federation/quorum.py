"""A round with too few good updates: the error that says who is missing and why."""

from __future__ import annotations

from collections.abc import Sequence

from fccl.contribution.protocol import NO_LOSS
from fccl.errors import DIVERGED, LOWER_RATE, FederationError
from fccl.messages import ClientFailure

_RESUME = "mend the clients and resume the run: its complete rounds are kept"


def too_few(round_number: int, have: int, need: int, excluded: Sequence[ClientFailure]) -> FederationError:
    """The error with its hint: absent clients may be there next time, training that diverged diverges again."""
    said = (
        f"round {round_number + 1} has {have} good update{'s' * (have != 1)}, MIN_CLIENTS is {need}{reasons(excluded)}"
    )
    diverged = sum(failure.reason.startswith((DIVERGED, NO_LOSS)) for failure in excluded)
    others_would_do = have + len(excluded) - diverged >= need
    return FederationError(said, _RESUME) if others_would_do else FederationError(said, LOWER_RATE, resumable=False)


def reasons(excluded: Sequence[ClientFailure]) -> str:
    """The missing clients with their reasons, the first three in brackets; empty where there are none."""
    found = "; ".join(f"client {failure.client_id}: {failure.reason}" for failure in excluded[:3])
    return f" ({found})" if found else ""
