"""The clients without an update in a round: as the record has them, and the error where too few are left."""

from __future__ import annotations

from collections.abc import Sequence

from fccl import phases
from fccl.contribution.protocol import NO_LOSS
from fccl.errors import DIVERGED, LOWER_RATE, FederationError
from fccl.messages import ClientFailure, FitTask
from fccl.records.run import ExcludedClient

_RESUME = "mend the clients and resume the run: its complete rounds are kept"
_OTHERS = "start clients that take part in this phase and resume the run: its complete rounds are kept"


def too_few(task: FitTask, have: int, need: int, excluded: Sequence[ClientFailure]) -> FederationError:
    """The error with its hint: absent clients may be there next time, training that diverged diverges again."""
    if excluded and all(failure.declines for failure in excluded):
        return _declined(task, have, need, excluded)
    said = f"round {task.round + 1} has {have} good update{'s' * (have != 1)}, MIN_CLIENTS is {need}{reasons(excluded)}"
    diverged = sum(failure.reason.startswith((DIVERGED, NO_LOSS)) for failure in excluded)
    others_would_do = have + len(excluded) - diverged >= need
    return FederationError(said, _RESUME) if others_would_do else FederationError(said, LOWER_RATE, resumable=False)


def failed_clients(missing: Sequence[ClientFailure]) -> tuple[ExcludedClient, ...]:
    """Those that failed, with their reasons."""
    failures = (failure for failure in missing if not failure.declines)
    return tuple(ExcludedClient(client_id=failure.client_id, reason=failure.reason) for failure in failures)


def declined_clients(missing: Sequence[ClientFailure]) -> tuple[int, ...]:
    """Those that take no part in the round's phase."""
    return tuple(failure.client_id for failure in missing if failure.declines)


def _declined(task: FitTask, have: int, need: int, excluded: Sequence[ClientFailure]) -> FederationError:
    """The error where nobody has failed: the missing clients take no part in the phase."""
    phase = phases.of(task.phase).name
    if not have:
        return FederationError(f"round {task.round + 1}: every client that is asked declines {phase}", _OTHERS)
    said = f"round {task.round + 1} has {have} good update{'s' * (have != 1)}, MIN_CLIENTS is {need}"
    return FederationError(f"{said}; {len(excluded)} of the clients decline {phase}", _OTHERS)


def reasons(excluded: Sequence[ClientFailure]) -> str:
    """The missing clients with their reasons, the first three in brackets; empty where there are none."""
    found = "; ".join(f"client {failure.client_id}: {failure.reason}" for failure in excluded[:3])
    return f" ({found})" if found else ""
