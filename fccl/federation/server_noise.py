"""`ServerNoise`: a run whose server draws the clients in secret, and clips, adds up and noises what they send.

x' = x + (Σ clip(u_i - x) + z C N(0, I)) / m. The number m is CLIENTS_PER_ROUND, whoever has answered, so one client
moves x' by C / m at most (McMahan et al. 2018). From there on nothing sees a single update.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fccl.adapters.adapter import Adapter
from fccl.errors import FederationError
from fccl.federation.privacy import RunPrivacy, over_budget
from fccl.federation.state import FederationState, RoundResult
from fccl.messages import ClientUpdate, FitTask
from fccl.privacy.mechanism import GRID_BITS, clipped_change, moved, noised, tag_of, trained_numbers
from fccl.privacy.secrets import Draws, Secret, secret_of
from fccl.privacy.spent import LOST, Release, Spent

CLIP_RATE = 0.2  # η of the geometric update of the clip (Andrew et al. 2021)
COUNT_NOISE = 20  # a round's clients over the deviation of the noise on how many were short (there)
_TIMED: dict[str, Any] = {"seconds": 0.0, "spent": None}  # which tell whether anybody was drawn, and who trains long
_PER_CLIENT = ("selected", "clients", "weights", "scores", "excluded", "declined", "arrived")


@dataclass(frozen=True, eq=False)
class Released:
    """The one adapter that a round's updates have become, and the clip of the next round where it adapts."""

    adapter: Adapter
    clip: float | None


@dataclass(frozen=True, eq=False)
class ServerNoise(RunPrivacy):
    """`folder` is the server's private one: its secret, and the ledger of all releases."""

    folder: Path

    @cached_property
    def _secret(self) -> tuple[Secret, bool]:
        return secret_of(self.folder)

    @cached_property
    def _spent(self) -> Spent:
        return Spent(self.folder)

    def begin(self, run_id: str, next_round: int, resumed: bool) -> None:
        """Read the secret, or make one. Where that of a run that goes on is lost, its open round counts as spent."""
        is_new = self._secret[1]
        if is_new and resumed:
            self._spent.add(self._release(run_id, next_round, LOST, LOST))

    def selected(self, run_id: str, state: FederationState, without: Collection[int]) -> tuple[int, ...]:
        """Drawn from the secret, of all clients. Those of `without` have nothing to send, and are not asked."""
        plan, secret = self.plan, self._secret[0]
        draws = secret.draws(run_id, state.next_round, "clients").uniforms(plan.num_clients)  # (num_clients,)
        if self.spec.sampling == "poisson":
            drawn = np.flatnonzero(draws < plan.clients_per_round / plan.num_clients)
        else:
            drawn = np.argsort(draws, kind="stable")[: plan.clients_per_round]
        return tuple(sorted({int(client) for client in drawn} - set(without)))

    def has_room(self, run_id: str, state: FederationState) -> bool:
        """Whether one more release is within the budget. One that is made again after a kill was counted before."""
        if any(release.round == state.next_round for release in self._spent.of(run_id)):
            return True
        return self._epsilon(run_id, state.next_round, [self._release(run_id, state.next_round, "", "")]) <= (
            self.spec.epsilon
        )

    def spent(self, run_id: str, state: FederationState) -> dict[str, Any]:
        """The same for every client."""
        releases, plain = self._counted(run_id, state.next_round)
        return {"epsilon": self.accounting.epsilon(releases, plain), "releases": releases + plain}

    def result(
        self,
        result: RoundResult,
        before: FederationState,
        asked: Sequence[int],
        clip: float | None,
        tell: Callable[[str], None],
    ) -> RoundResult:
        """The round without its updates, in memory too: nobody can write them down."""
        shown = super().result(result, before, asked, clip, tell)
        return replace(shown, counted=None, updates=(), inputs=replace(shown.inputs, arrived=()))

    def withheld(self) -> dict[str, Any]:
        """All that is said of single clients, also who was drawn, and how long that took."""
        bare = dict.fromkeys(_PER_CLIENT, ())
        return (
            super().withheld()
            | bare
            | _TIMED
            | {"counted": None, "lora_error": None, "effective_clients": 1.0, "sent": None}
        )

    def released(
        self, task: FitTask, updates: Sequence[ClientUpdate], drawn: int, clip: float | None = None
    ) -> Released:
        """The noised mean of the updates of the clients that were drawn; `clip` is the round's where it adapts. Loads
        one update at a time.

        The ledger is written before anything is drawn. Raises `FederationError` where that would pass the budget, or
        fewer of the drawn clients have answered than MIN_CLIENTS.
        """
        self._require_answers(task, drawn, len(updates))
        limit, m = clip or self.spec.clip, self.plan.clients_per_round
        total, short = torch.zeros(task.trained.vector.shape, dtype=torch.float64), 0  # (d,)
        for update in updates:
            change, is_short = clipped_change(task.trained, update.adapter.load(), limit)  # (d,)
            total, short = total.add_(change), short + is_short
        secret, asked = self._secret[0], (task.adapter.sha256, repr(limit), str(short), str(len(updates)))
        tag = tag_of(asked, total)
        self._spend(self._release(task.run_id, task.round, secret.name, tag))
        draws = secret.draws(task.run_id, task.round, "noise of a sum", tag)
        mask = trained_numbers(task.trained.form, task.train)
        mean = noised(total, self.noise_of_sum * limit, mask, draws) / m  # (d,)
        return Released(moved(task.trained, mean), self._next_clip(limit, short - len(updates) / 2, draws))

    @property
    def noise_of_sum(self) -> float:
        """z of the sum. Where a noised count goes with it, sum and count together cost what DP_NOISE says."""
        if not self.spec.clip_quantile:
            return self.spec.noise
        return float((self.spec.noise**-2 - (2 * self.noise_of_count) ** -2) ** -0.5)

    @property
    def noise_of_count(self) -> float:
        """The deviation on how many changes were short. No more than a quarter of the budget goes there."""
        return max(self.plan.clients_per_round / COUNT_NOISE, self.spec.noise)

    def _next_clip(self, limit: float, count: float, draws: Draws) -> float | None:
        """C exp(-η (b - q)), b the noised share of short changes, q the quantile. `count` has 1/2 for each short change
        and -1/2 for a long one.
        """
        if not self.spec.clip_quantile:
            return None
        noisy = round(math.ldexp(count + self.noise_of_count * float(draws.normals(1)[0]), GRID_BITS))
        share = math.ldexp(noisy, -GRID_BITS) / self.plan.clients_per_round + 0.5
        return limit * math.exp(-CLIP_RATE * (min(1.0, max(0.0, share)) - self.spec.clip_quantile))

    def _require_answers(self, task: FitTask, drawn: int, updates: int) -> None:
        if updates < (least := min(self.plan.min_clients, drawn)):
            raise FederationError(
                f"round {task.round + 1} has {updates} good updates, MIN_CLIENTS is {least}",
                "mend the clients and resume the run: its complete rounds are kept",
            )

    def _spend(self, release: Release) -> None:
        if release in self._spent.releases:
            return
        if self._epsilon(release.run_id, release.round, [release]) > self.spec.epsilon:
            raise over_budget(self.spec, f"round {release.round + 1}, done again,")
        self._spent.add(release)

    def _epsilon(self, run_id: str, next_round: int, more: Sequence[Release] = ()) -> float:
        return self.accounting.epsilon(*self._counted(run_id, next_round, more))

    def _counted(self, run_id: str, next_round: int, more: Sequence[Release] = ()) -> tuple[int, int]:
        """The releases of the run and `more`. A complete round that the ledger has lost counts too."""
        releases, plain = self._spent.counted(run_id, more)
        known = {release.round for release in self._spent.of(run_id)}
        return releases + sum(number not in known for number in range(next_round)), plain

    def _release(self, run_id: str, round_number: int, secret: str, tag: str) -> Release:
        return Release(run_id=run_id, round=round_number, secret=secret, tag=tag, noise=self.spec.noise)
