"""The clients whose updates brought an aggregate to where it cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fccl.adapters.adapter import Adapter
from fccl.contribution.protocol import NO_LOSS
from fccl.errors import BadAggregate, FederationError
from fccl.federation.bounds import farthest
from fccl.messages import ClientUpdate, FitTask


def suspects(
    task: FitTask, updates: Sequence[ClientUpdate], error: BadAggregate, validate: Callable[[Adapter], object]
) -> dict[int, str]:
    """All under which alone the server finds no loss, else the one that moved farther than the others by far; each with
    the reason. `validate` raises `BadAggregate` where an adapter has no finite loss.

    Raises `FederationError` when there is none, with the one that moved farthest.
    """
    alone = {update.client_id: NO_LOSS for update in updates if not _has_loss(task, update, validate)}
    if alone:
        return alone
    far = farthest(updates)
    if far is None or not far.alone:
        said = f"; the longest change is that of {far.words}" if far else ""
        raise FederationError(f"round {task.round + 1}: {error}{said}", error.hint, error.resumable) from error
    return {far.client_id: f"with its change, the longest of the round ({far.words}), {error}"}


def _has_loss(task: FitTask, update: ClientUpdate, validate: Callable[[Adapter], object]) -> bool:
    """Whether the server's model has a finite loss under this update alone; true where the server has no examples."""
    try:
        validate(update.with_frozen(task.adapter).adapter.load())
    except BadAggregate:
        return False
    return True
