"""`PrivateLearner`: what a client holds to before an update of it leaves, whatever learner has made that update.

It declines where there are too few examples, or the budget is spent. Under differential privacy it reports no figure
of its training. Where the client adds the noise it clips and noises the change, or has the learner train by DP-SGD.
For a secure sum it masks the update, and reports nothing either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from fccl.adapters.ranks import leading, rank_of
from fccl.data.shards import ClientShard
from fccl.errors import PhaseDeclined, SettingsError, UpdateRejected
from fccl.messages import (
    ClientFailure,
    ClientUpdate,
    FitTask,
    Learner,
    LoadShard,
    SeveralAtOnce,
    StatusListener,
    attempt,
    by_example,
    declined,
    guarded,
)
from fccl.privacy.mechanism import clipped_change, moved, noised, tag_of, trained_numbers
from fccl.privacy.sampling import ExampleSampling
from fccl.privacy.secrets import secret_of
from fccl.privacy.spec import PrivacySpec
from fccl.privacy.spent import Release, Spent, epsilon_of
from fccl.records.run import WITHHELD, WITHHELD_REPORT, ClientStatus
from fccl.training.masking import Masking

PURPOSE = "noise of an update"


@dataclass
class PrivateLearner:
    """A learner behind what the client holds to. `folder` is each client's private one.

    `own` is the differential privacy that the client insists on: another task is refused, and its budget holds over all
    runs that its ledger knows. None: it does what the task says. `masking` does its part in secure sums; with
    `only_masked` it refuses every other task.
    """

    learner: Learner
    folder: Callable[[int], Path]
    min_shard: int = 0
    own: PrivacySpec | None = None
    masking: Masking | None = None
    only_masked: bool = False
    _spent: dict[int, Spent] = field(default_factory=dict, init=False)

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        """The update as it may leave. Raises as the learner does, and `PhaseDeclined`, `SettingsError`,
        `StorageError`.
        """
        self.require_allowed(task, shard)
        if task.privacy is not None and task.privacy.unit == "example":
            return self.released(task, self._stepped(task, task.privacy, shard, on_status))
        return self.released(task, self.learner.fit(task, shard, heard(task, on_status)))

    def fit_together(
        self, task: FitTask, client_ids: Sequence[int], load_shard: LoadShard, on_status: StatusListener
    ) -> list[ClientUpdate | ClientFailure]:
        """The answers of these clients, in their order. Raises as `fccl.messages.attempt`."""
        one_by_one = task.privacy is not None and task.privacy.unit == "example"
        if one_by_one or not isinstance(self.learner, SeveralAtOnce):
            return [attempt(self.fit, task, client, load_shard, on_status) for client in client_ids]
        answers: dict[int, ClientUpdate | ClientFailure] = {}
        for client in client_ids:
            said = guarded(client, lambda client=client: self.require_allowed(task, load_shard(client)))  # type: ignore[misc]
            if isinstance(said, ClientFailure):
                answers[client] = said
        able = [client for client in client_ids if client not in answers]
        together = self.learner.fit_together(task, able, load_shard, heard(task, on_status)) if able else ()
        for client, answer in zip(able, together, strict=True):
            answers[client] = self._released_of(client, task, answer)
        return [answers[client] for client in client_ids]

    def _released_of(
        self, client: int, task: FitTask, answer: ClientUpdate | ClientFailure
    ) -> ClientUpdate | ClientFailure:
        if isinstance(answer, ClientFailure):
            return answer
        return guarded(client, lambda: self.released(task, answer))

    def require_allowed(self, task: FitTask, shard: ClientShard) -> None:
        """Raises `PhaseDeclined` where the shard is too small, `SettingsError` where the task asks for less privacy
        than the client insists on.
        """
        if 0 < len(shard.of(task.phase)) < self.min_shard:
            raise PhaseDeclined(f"{declined(task.phase)}: it has fewer than MIN_SHARD={self.min_shard} examples")
        if self.only_masked and task.secure is None:
            raise SettingsError(
                "the round's updates are not added up in secret, and this client sends no other (SECURE_AGGREGATION)",
                hint="start orchestrator and client with the same SECURE_AGGREGATION",
            )
        asked = task.privacy.mechanism() if task.privacy else "none"
        if self.own is not None and asked != self.own.mechanism():
            raise SettingsError(
                f"the round's differential privacy is {asked}, and this client's {self.own.mechanism()}",
                hint="start orchestrator and client with the same DP_WHERE, DP_UNIT, DP_CLIP and DP_NOISE",
            )

    def released(self, task: FitTask, update: ClientUpdate) -> ClientUpdate:
        """The update as it may leave: itself without differential privacy and masks. Noise comes before masks.

        Raises `PhaseDeclined` where it would pass the client's own budget, `UpdateRejected` as `Masking.masked`.
        """
        if task.privacy is None and task.secure is None:
            return update
        kept = replace(update, contribution=WITHHELD, report=WITHHELD_REPORT)
        if task.privacy is not None and task.privacy.noises_changes:
            kept = self._noised(task, task.privacy, kept)
        if task.secure is None:
            return kept
        if self.masking is None:
            raise UpdateRejected("this client takes no part in secure sums")
        return self.masking.masked(task, task.secure, kept, update.contribution.num_samples)

    def _noised(self, task: FitTask, spec: PrivacySpec, update: ClientUpdate) -> ClientUpdate:
        """The ledger is written before anything is drawn: whatever may have left is in it."""
        trained = update.adapter.load()
        start = leading(task.trained, rank_of(trained.form))
        change, _ = clipped_change(start, trained, spec.clip)  # (d,)
        secret, _ = secret_of(self.folder(update.client_id))
        tag = tag_of((*task.question, str(update.client_id)), change)
        self._spend(
            update.client_id,
            Release(run_id=task.run_id, round=task.round, secret=secret.name, tag=tag, noise=spec.noise),
        )
        draws = secret.draws(task.run_id, task.round, PURPOSE, tag)
        change = noised(change, spec.deviation, trained_numbers(start.form, task.train), draws)
        return replace(update, adapter=moved(start, change))

    def _stepped(self, task: FitTask, spec: PrivacySpec, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        """The update of a training by DP-SGD. Its line in the ledger names what was asked and what came of it, so an
        answer that is repeated is spent once. It is written when the training is over, before the update leaves.
        """
        learner = by_example(self.learner)
        client_id, sampling = shard.client_id, ExampleSampling.of(task.train, len(shard.require(task.phase)))
        secret, _ = secret_of(self.folder(client_id))
        release = Release(
            run_id=task.run_id,
            round=task.round,
            secret=secret.name,
            tag="",
            noise=spec.noise,
            unit=spec.unit,
            rate=sampling.rate,
            steps=sampling.steps,
        )
        self._require_room(client_id, release)
        question = tag_of((*task.question, str(client_id)), torch.zeros(0))
        draws = partial(secret.draws, task.run_id, task.round, question)
        update = learner.fit_by_example(task, shard, heard(task, on_status), draws)
        tag = tag_of((question,), update.adapter.load().vector)
        self._spend(client_id, release.model_copy(update={"tag": tag}))
        return update

    def _require_room(self, client_id: int, release: Release) -> None:
        """Before any training: raises `PhaseDeclined` where its release would pass the budget. One that may be made
        again after a kill is looked at when it is there.
        """
        spent = self._ledger(client_id)
        again = {(each.run_id, each.round, each.secret) for each in spent.releases}
        if (release.run_id, release.round, release.secret) not in again:
            self._require_within_budget(spent, release)

    def _spend(self, client_id: int, release: Release) -> None:
        spent = self._ledger(client_id)
        if release not in spent.releases:
            self._require_within_budget(spent, release)
        spent.add(release)

    def _ledger(self, client_id: int) -> Spent:
        if client_id not in self._spent:
            self._spent[client_id] = Spent(self.folder(client_id))
        return self._spent[client_id]

    def _require_within_budget(self, spent: Spent, release: Release) -> None:
        if self.own is None:
            return
        if epsilon_of((*spent.releases, release), self.own.unit, self.own.delta) > self.own.epsilon:
            raise PhaseDeclined(f"declines: an update more would pass its budget DP_EPSILON={self.own.epsilon:g}")


def heard(task: FitTask, on_status: StatusListener) -> StatusListener:
    """The listener; under differential privacy, and for a secure sum, it hears that a client trains, and no figure of
    it.

    By example it hears nothing between the steps: the time of one says how many examples it drew.
    """
    if task.privacy is None and task.secure is None:
        return on_status
    silent = task.privacy is not None and task.privacy.unit == "example"
    return lambda status: None if silent and _is_step(status) else on_status(_bare(status))


def _is_step(status: ClientStatus) -> bool:
    return status.state == "training" and status.step > 0


def _bare(status: ClientStatus) -> ClientStatus:
    return status.model_copy(update={"step": 0, "steps": 0, "loss": None, "tokens_per_second": 0.0})
