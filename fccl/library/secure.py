"""From settings to secure aggregation: what goes with it and what does not, and the numbers that a sum has room for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fccl.config import Settings
from fccl.errors import SettingsError
from fccl.federation.open_sum import OpenSums
from fccl.federation.secure_aggregation import SecureAggregation
from fccl.library.combinations import COMBINATIONS
from fccl.library.privacy import with_nothing_kept, without_own_tests
from fccl.paths import LogPaths
from fccl.privacy.cohort import MOST_CLIENTS, smallest_threshold
from fccl.privacy.fixed_point import FixedPoint

BESIDE = "SECURE_AGGREGATION=true"
_DEVIATIONS = 9  # by which noise at the client is never longer: 53 bits give 8.6 at most


def secure_aggregation(settings: Settings) -> SecureAggregation | None:
    """The secure sums of a run of these settings, at its server.

    Raises `SettingsError` for what does not go with them, and where a sum of so many clients may overflow.
    """
    if not settings.secure_aggregation:
        return None
    for each in COMBINATIONS:
        if each.setting != "secure_aggregation":
            each.require(settings, "secure", BESIDE)
    plan = settings.round_plan()
    if not 2 <= plan.clients_per_round <= MOST_CLIENTS:
        raise SettingsError(
            f"{BESIDE}: a round of {plan.clients_per_round} clients; a secure sum is of 2 to {MOST_CLIENTS}",
            hint="change CLIENTS_PER_ROUND",
        )
    sums = OpenSums(LogPaths(settings.log_dir).private)
    numbers = _fixed(settings, plan.clients_per_round), _clip(settings), plan.min_clients
    return SecureAggregation(*numbers, sums, settings.secure_threshold)


def with_secure_sums(settings: Settings, tell: Callable[[str], None], given: Mapping[str, object]) -> Settings:
    """The settings of a new run with those that its secure sums decide, and a line on what they mean.

    Raises `SettingsError` for an argument that they do not allow.
    """
    if not settings.secure_aggregation:
        return settings
    if "secure_clip" in given and _noises_changes(settings):
        raise SettingsError(
            f"SECURE_CLIP={settings.secure_clip:g} has no effect with DP_WHERE=client: a change is clipped to DP_CLIP "
            "before its noise",
            hint="leave it out",
        )
    settings = without_own_tests(with_nothing_kept(settings, given, "secure", BESIDE))
    found = secure_aggregation(settings)
    if found is not None:
        tell(_said(found, settings.round_plan().clients_per_round))
    return settings


def _said(found: SecureAggregation, clients: int) -> str:
    fixed = found.fixed
    counted = "all clients count alike" if fixed.most == 1 else f"a client counts for at most {fixed.most:,} examples"
    needed = smallest_threshold(clients, found.threshold)
    return (
        f"Secure aggregation: the server learns the sum of a round's {clients} clients, of which {needed} are needed, "
        f"and no single update. Changes of at most {fixed.bound:g}, in steps of 2^-{fixed.bits}; {counted}."
    )


def _fixed(settings: Settings, clients: int) -> FixedPoint:
    noise = _DEVIATIONS * settings.dp_noise * settings.dp_clip
    bound = settings.dp_clip + noise if _noises_changes(settings) else settings.secure_clip
    most = 1 if settings.contribution_mode == "uniform" else settings.secure_max_samples
    return FixedPoint.of(bound=bound, most=most, clients=clients)


def _clip(settings: Settings) -> float:
    """0 where the change is clipped already, before its noise."""
    return 0.0 if _noises_changes(settings) else settings.secure_clip


def _noises_changes(settings: Settings) -> bool:
    """Whether a change is clipped to DP_CLIP and noised. By example, DP_CLIP bounds gradients and no change."""
    return settings.dp_where == "client" and settings.dp_unit == "client"
