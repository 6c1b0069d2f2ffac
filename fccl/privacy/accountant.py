"""The accountant: from releases to (ε, δ), by the library dp-accounting.

Which accountant counts which sampling, and under which neighbouring relation, stands in `accounting_of` alone. Two
conventions of that library differ under `REPLACE_ONE`. Its PLD takes the noise over the clip, and doubles the
sensitivity itself. Its RDP takes the noise over the sensitivity, which is twice the clip.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from fccl.extras import require_extra
from fccl.privacy.spec import PrivacySpec
from fccl.specs import Value

if TYPE_CHECKING:
    from dp_accounting.dp_event import DpEvent
    from dp_accounting.privacy_accountant import PrivacyAccountant

Accountant = Literal["PLD", "RDP"]
_GRID = (
    1e-3  # of the privacy loss of steps: a bound on ε that is 1e-5 of it higher than at 1e-4, in a tenth of the time
)
Relation = Literal["add or remove one", "replace one"]


class Accounting(Value):
    """The count of a run's releases for one client. `noise` is the deviation of a release over the clip.

    A release is amplified by sampling where nobody but the server knows whom the round drew: `per_round` of `clients`.

    >>> alone = Accounting(accountant="PLD", relation="replace one", noise=4.0, clients=1, per_round=1, delta=1e-5)
    >>> round(alone.epsilon(1), 3), round(alone.epsilon(6), 3)
    (1.993, 5.545)
    """

    accountant: Accountant
    relation: Relation
    noise: float = Field(gt=0)
    clients: int = Field(ge=1)
    per_round: int = Field(ge=1)
    delta: float = Field(gt=0, lt=1)

    @property
    def amplifies(self) -> bool:
        """Whether sampling makes a release cheaper."""
        return self.per_round < self.clients

    def epsilon(self, releases: int, plain: int = 0) -> float:
        """ε at δ after so many releases, and `plain` ones that sampling does not make cheaper.

        Raises `SettingsError` where dp-accounting is not installed.
        """
        return _epsilon(self, releases, plain) if releases + plain else 0.0

    def releases_within(self, epsilon: float, most: int) -> int:
        """The largest number of releases, at most `most`, that costs no more than `epsilon`."""
        low, high = 0, most
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.epsilon(middle) <= epsilon else (low, middle - 1)
        return low


def accounting_of(spec: PrivacySpec, clients: int, per_round: int) -> Accounting:
    """The accounting of a run whose rounds draw `per_round` of its clients.

    Noise at the client: the server sees every message and knows who sent it, so nothing is amplified. At the server,
    `poisson` sampling is counted by PLD under add or remove one, `fixed` by RDP under replace one.
    """
    if spec.where == "client":
        return Accounting(
            accountant="PLD", relation="replace one", noise=spec.noise, clients=1, per_round=1, delta=spec.delta
        )
    poisson = spec.sampling == "poisson"
    return Accounting(
        accountant="PLD" if poisson else "RDP",
        relation="add or remove one" if poisson else "replace one",
        noise=spec.noise,
        clients=clients,
        per_round=per_round,
        delta=spec.delta,
    )


class Steps(Value):
    """Noised sums of one kind, as one record has a part in them. `noise` is the deviation over the clip.

    Each of the `count` sums has taken the record with probability `rate`, in a draw that nobody else knows.

    >>> round(epsilon_of_steps([Steps(noise=1.0, rate=0.1, count=30)], 1e-5), 1)
    4.2
    """

    noise: float = Field(gt=0)
    rate: float = Field(default=1.0, gt=0, le=1)
    count: int = Field(ge=0)


def epsilon_of_steps(steps: Iterable[Steps], delta: float) -> float:
    """ε at δ of all these sums together, for one record more or less (PLD).

    Raises `SettingsError` where dp-accounting is not installed.
    """
    counts: Counter[tuple[float, float]] = Counter()
    for each in steps:
        counts[each.noise, each.rate] += each.count
    kinds = tuple(sorted((noise, rate, count) for (noise, rate), count in counts.items() if count))
    return _epsilon_of_kinds(kinds, delta) if kinds else 0.0


def noise_of_all(noises: Iterable[float]) -> float:
    """The noise multiplier of one Gaussian release that costs what these cost together: (Σ z_i^-2)^-1/2."""
    return 1 / math.sqrt(math.fsum(noise**-2 for noise in noises))


def smallest_noise(accounting: Accounting, epsilon: float, releases: int) -> float:
    """A noise multiplier, of two digits after the point, under which so many releases cost no more than `epsilon`;
    larger than the accounting's own, which is not enough.
    """
    low = high = accounting.noise
    while accounting.model_copy(update={"noise": high}).epsilon(releases) > epsilon:
        low, high = high, 2 * high
    while high - low > 0.04 * high:  # each figure takes a second
        middle = (low + high) / 2
        enough = accounting.model_copy(update={"noise": middle}).epsilon(releases) <= epsilon
        low, high = (low, middle) if enough else (middle, high)
    return math.ceil(100 * high) / 100


@lru_cache(maxsize=4096)
def _epsilon(accounting: Accounting, releases: int, plain: int) -> float:
    counting = _fresh(accounting)
    if releases:
        counting.compose(_event(accounting, accounting.amplifies), releases)
    if plain:
        counting.compose(_event(accounting, False), plain)
    return float(counting.get_epsilon(accounting.delta))


@lru_cache(maxsize=4096)
def _epsilon_of_kinds(kinds: tuple[tuple[float, float, int], ...], delta: float) -> float:
    require_extra("privacy", "differential privacy")
    from dp_accounting import NeighboringRelation, dp_event, pld

    counting = pld.PLDAccountant(NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=_GRID)
    for noise, rate, count in kinds:
        step = dp_event.GaussianDpEvent(noise)
        counting.compose(step if rate == 1 else dp_event.PoissonSampledDpEvent(rate, step), count)
    return float(counting.get_epsilon(delta))


def _fresh(accounting: Accounting) -> PrivacyAccountant:
    require_extra("privacy", "differential privacy")
    from dp_accounting import NeighboringRelation, pld, rdp

    replace = accounting.relation == "replace one"
    relation = NeighboringRelation.REPLACE_ONE if replace else NeighboringRelation.ADD_OR_REMOVE_ONE
    if accounting.accountant == "PLD":
        return pld.PLDAccountant(relation)
    return rdp.RdpAccountant(neighboring_relation=relation)


def _event(accounting: Accounting, amplified: bool) -> DpEvent:
    from dp_accounting import dp_event

    doubled = accounting.accountant == "RDP" and accounting.relation == "replace one"
    release = dp_event.GaussianDpEvent(accounting.noise / 2 if doubled else accounting.noise)
    if not amplified:
        return release
    if accounting.relation == "replace one":
        return dp_event.SampledWithoutReplacementDpEvent(accounting.clients, accounting.per_round, release)
    return dp_event.PoissonSampledDpEvent(accounting.per_round / accounting.clients, release)
