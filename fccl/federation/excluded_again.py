"""A kept round's exclusions by length, made again: MAX_UPDATE_RATIO as `run.json` has it against what the round did."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

from fccl.errors import FederationError
from fccl.federation.bounds import measured, too_long
from fccl.federation.kept_rounds import KeptRound
from fccl.federation.late import is_late
from fccl.messages import ClientUpdate

_SAID = "MAX_UPDATE_RATIO is "  # in the reason of an exclusion by length
_SAME = 1e-6  # relative; norms are sums in float64


def require_same_exclusions(kept: KeptRound, ratio: float) -> None:
    """Measure the kept updates, and bound them by `ratio` times the median as the round did.

    Raises `FederationError` where other clients would have been excluded, or a recorded norm is not the update's.
    """
    bounded = too_long(tuple(_measured(kept)), ratio, kept.inputs.norms)
    said = {each.client_id: each.reason for each in kept.record.excluded if _SAID in each.reason}
    if set(said) != set(bounded):
        raise FederationError(f"MAX_UPDATE_RATIO={ratio:g} excludes {_named(bounded)}, and the round {_named(said)}")
    if any(not reason.endswith(f"{_SAID}{ratio:g}") for reason in said.values()):
        raise FederationError(f"its exclusions were made with another MAX_UPDATE_RATIO than {ratio:g}")


def _measured(kept: KeptRound) -> Iterator[ClientUpdate]:
    """All updates that arrived, with the norms of their files; a late one's is against an adapter before the round."""
    for update in kept.arrived():
        if is_late(update, kept.task):
            yield update
            continue
        found = measured(update, update.adapter.load(), kept.task.trained)
        for name in ("change_norm", "control_norm"):
            if not _same(getattr(update, name), getattr(found, name)):
                raise FederationError(f"client {update.client_id}: its {name} is not its update's")
        yield found


def _same(recorded: float | None, now: float | None) -> bool:
    if recorded is None or now is None:
        return recorded is now
    return math.isclose(recorded, now, rel_tol=_SAME)


def _named(clients: Collection[int]) -> str:
    return f"clients {', '.join(map(str, sorted(clients)))}" if clients else "nobody"
