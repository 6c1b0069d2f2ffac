"""`RunPrivacy`: the differential privacy of a run at the server: whom a round asks, the ledger, and when the run ends.

`ClientNoise` is that of a run whose clients add the noise to their changes. `fccl.federation.server_noise` has that of
the server, and `fccl.federation.example_noise` that of clients that train by DP-SGD.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from fccl.errors import FederationError
from fccl.federation.selection import select_clients
from fccl.federation.state import FederationState, RoundResult
from fccl.privacy.accountant import Accounting, accounting_of
from fccl.privacy.spec import PrivacySpec
from fccl.records.privacy import ClientSpent, RoundPrivacy
from fccl.specs import PHASES, Phase, RoundPlan


@dataclass(frozen=True, eq=False)
class RunPrivacy(ABC):
    """The differential privacy `spec` in a run of `plan`."""

    spec: PrivacySpec
    plan: RoundPlan

    @cached_property
    def accounting(self) -> Accounting:
        """The way in which releases are counted."""
        return accounting_of(self.spec, self.plan.num_clients, self.plan.clients_per_round)

    def begin(self, run_id: str, next_round: int, resumed: bool) -> None:
        """Get what the run's draws come from. Raises `StorageError` when it cannot be had."""
        return

    @abstractmethod
    def selected(self, run_id: str, state: FederationState, without: Collection[int]) -> tuple[int, ...]:
        """The clients that the next round asks, in client order, none of `without`."""

    @abstractmethod
    def has_room(self, run_id: str, state: FederationState) -> bool:
        """Whether the budget allows the state's next round."""

    @abstractmethod
    def spent(self, run_id: str, state: FederationState) -> dict[str, Any]:
        """The ledger as fields of `RoundPrivacy`: `epsilon`, `releases` and `clients`."""

    def asked(self, state: FederationState, clients: Sequence[int], phase: Phase) -> FederationState:
        """The state once a round has asked these clients: what each of them has spent, where they differ."""
        return state

    def withheld(self) -> dict[str, Any]:
        """The fields of a round's record that it must not say, as they are instead."""
        return {"contributions": ()}

    def result(
        self,
        result: RoundResult,
        before: FederationState,
        asked: Sequence[int],
        clip: float | None,
        tell: Callable[[str], None],
    ) -> RoundResult:
        """The round as it may be shown, with the ledger after it; the last one where the budget allows no other."""
        quiet = set(result.record.declined)
        able, phase = [client for client in asked if client not in quiet], result.record.phase
        counted = replace(result.state, clip=clip, releases=before.releases, va_releases=before.va_releases)
        after = self.asked(counted, able, phase)
        if early := self.early(result.record.run_id, after):
            done = {**after.early, **early}
            after = replace(after, early=done, reference=after.reference or after.result)
            tell(
                f"The privacy budget DP_EPSILON={self.spec.epsilon:g} allows no further round: the run ends after "
                f"{after.next_round} of {self.plan.total_rounds}."
            )
        said = self.withheld() | {"privacy": self._said(result.record.run_id, before, after)}
        return replace(result, record=result.record.model_copy(update=said), state=after)

    def _said(self, run_id: str, before: FederationState, after: FederationState) -> RoundPrivacy:
        return RoundPrivacy(
            where=self.spec.where,
            clip=before.clip or self.spec.clip,
            noise=self.spec.noise,
            unit=self.spec.unit,
            delta=self.spec.delta,
            budget=self.spec.epsilon,
            **self.counted_by(),
            **self.spent(run_id, after),
        )

    def counted_by(self) -> dict[str, Any]:
        """The way in which releases are counted, as fields of `RoundPrivacy`."""
        return {
            "sampling": self.spec.sampling,
            "amplified": self.accounting.amplifies,
            "accountant": self.accounting.accountant,
            "relation": self.accounting.relation,
        }

    def require_room(self, run_id: str, state: FederationState) -> None:
        """Raises `FederationError` where the budget does not allow the state's next round."""
        if not self.has_room(run_id, state):
            raise over_budget(self.spec, f"round {state.next_round + 1}")

    def early(self, run_id: str, after: FederationState) -> Mapping[Phase, int]:
        """The rounds that phases have had, where the budget ends the run after this round; else empty."""
        went = self.plan.as_it_went(after.early)
        if after.next_round >= went.total_rounds or self.has_room(run_id, after):
            return {}
        done = {phase: after.next_round - went.first_round(phase) for phase in PHASES}
        return {phase: max(0, number) for phase, number in done.items() if number < went.rounds_of(phase)}


class ClientNoise(RunPrivacy):
    """Clients add the noise. Each has its own count: whom a round asks is known, so no draw makes it cheaper."""

    def selected(self, run_id: str, state: FederationState, without: Collection[int]) -> tuple[int, ...]:
        """Drawn as ever, without those whose budget is spent."""
        return select_clients(self.plan, state.next_round, {*without, *self.exhausted(state)}, state.here)

    def epsilon(self, state: FederationState, client: int, more: int = 0) -> float:
        """ε of a client by now, and of so `more` releases in the state's next round."""
        return self.accounting.epsilon(state.releases.get(client, 0) + more)

    def exhausted(self, state: FederationState) -> frozenset[int]:
        """The clients that one more release would bring over the budget."""
        here = range(self.plan.num_clients) if state.here is None else state.here
        return frozenset(client for client in here if self.epsilon(state, client, 1) > self.spec.epsilon)

    def has_room(self, run_id: str, state: FederationState) -> bool:
        """Whether as many clients as MIN_CLIENTS may send one more update."""
        here = set(range(self.plan.num_clients) if state.here is None else state.here)
        return len(here - self.exhausted(state)) >= self.plan.min_clients

    def spent(self, run_id: str, state: FederationState) -> dict[str, Any]:
        """By client; the largest first of all."""
        clients = tuple(
            ClientSpent(client_id=client, releases=count, epsilon=self.epsilon(state, client))
            for client, count in sorted(state.releases.items())
        )
        most = max(clients, key=lambda each: each.epsilon, default=ClientSpent(client_id=0, releases=0, epsilon=0.0))
        return {"clients": clients, "releases": most.releases, "epsilon": most.epsilon}

    def asked(self, state: FederationState, clients: Sequence[int], phase: Phase) -> FederationState:
        """One more release for each. One that failed may have sent its update too late."""
        pairs = _one_more(state.va_releases, clients) if phase == "va" else state.va_releases
        return replace(state, releases=_one_more(state.releases, clients), va_releases=pairs)


def _one_more(known: Mapping[int, int], clients: Sequence[int]) -> dict[int, int]:
    return {**known, **{client: known.get(client, 0) + 1 for client in clients}}


def over_budget(spec: PrivacySpec, what: str) -> FederationError:
    """The error of what would pass the budget."""
    return FederationError(
        f"{what} would pass the privacy budget DP_EPSILON={spec.epsilon:g} at DP_DELTA={spec.delta:g}",
        hint="what is complete is within it; more rounds need a new run with more DP_NOISE",
        resumable=False,
    )
