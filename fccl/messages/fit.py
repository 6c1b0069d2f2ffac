"""Requests of kind `fit`: a round of local training, its terms as JSON, and the update that answers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal, Protocol, Self

from pydantic import Field

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.ranks import WithFrozen, leading, of_rank, rank_of
from fccl.adapters.source import AdapterSource
from fccl.errors import AdapterError, UpdateRejected
from fccl.messages.requests import (
    Terms,
    adapter_names,
    only,
    read_terms,
    require_loss,
    require_reference,
    spelt,
    status_now,
    with_reference,
)
from fccl.privacy.cohort import MaskedBy, SecureSpec
from fccl.privacy.spec import PrivacySpec
from fccl.records.run import ClientState, ClientStatus, Contribution, TrainingReport
from fccl.specs import ModelSpec, Phase, Round, RunId, TrainSpec, Value, named_seed


class FitSettings(Value):
    """The part of a `FitTask` that says how to train. A new setting of local training is a field here or below it."""

    model: ModelSpec
    train: TrainSpec
    seed: int = Field(ge=0)
    privacy: PrivacySpec | None = None  # what an update may say of its client; None: all that it holds
    secure: SecureSpec | None = None  # the masked sum that an update is for; None: it is sent as it is


class FitTerms(FitSettings):
    """A `FitTask` but for its adapters."""

    kind: Literal["fit"]
    step: Literal[0]
    run_id: RunId
    round: Round
    phase: Phase


class Corrections(Protocol):
    """The corrections that SCAFFOLD's clients add to their gradients: c - c_i, of the adapter's form."""

    def of(self, client_id: int) -> Adapter:
        """The correction of one client."""
        ...


@dataclass(frozen=True, eq=False)
class OwnCorrection:
    """The correction of the one client that a task was sent to."""

    adapter: Adapter

    def of(self, client_id: int) -> Adapter:
        """The correction, whatever number that client has."""
        return self.adapter


@dataclass(frozen=True, eq=False)
class FitTask:
    """One round's work, the same for every client. `reference` is the last SFT global adapter, set exactly
    in VA rounds whose loss takes one.

    Under SCAFFOLD, and only then, `corrections` gives what a client adds to its gradients, and the update comes with a
    `control`.

    >>> from fccl.testing.toy import MODEL, TRAIN, adapter
    >>> task = FitTask("run", 0, "sft", adapter(1.0, 2.0, 3.0), None, MODEL, TRAIN, seed=7)
    >>> task.adapter.tensors["w"].tolist(), task.client_seed(0) != task.client_seed(1)
    ([1.0, 2.0, 3.0], True)

    A transport sends `terms()`, which is JSON, and the adapters, and reads the task again at the client. Where there is
    `coded`, it may send that in the place of `adapter` (`fccl.adapters.short`):

    >>> FitTask.from_terms(task.terms(), task.adapters()).terms() == task.terms()
    True
    """

    run_id: str
    round: int
    phase: Phase
    adapter: Adapter
    reference: Adapter | None
    model: ModelSpec
    train: TrainSpec
    seed: int
    corrections: Corrections | None = None
    privacy: PrivacySpec | None = None
    coded: bytes | None = None  # the adapter in few bytes, for clients that have the one before it
    centre: Adapter | None = None  # that PROX_MU pulls to, where it is not `adapter`; never travels
    secure: SecureSpec | None = None
    kind: ClassVar[str] = "fit"
    step: ClassVar[int] = 0

    def __post_init__(self) -> None:
        require_reference(self.phase, self.train.preference, self.reference)
        if self.reference is not None:
            of_rank(self.adapter.form, rank_of(self.reference.form)).require(self.reference.form)

    @property
    def answered_by(self) -> type[ClientUpdate]:
        """The type of an answer that is no failure."""
        return ClientUpdate

    def terms(self) -> Terms:
        """The task as JSON, but for its adapters. A field that has its default is left out."""
        return spelt(self, FitTerms)

    def adapters(self) -> Mapping[str, Adapter]:
        """The adapters that every client gets: `adapter`, and in VA rounds `reference`."""
        return with_reference(self.adapter, self.reference)

    @property
    def question(self) -> tuple[str, ...]:
        """All that an update follows from before it is masked, in texts: the terms, and the adapters' hashes."""
        said = {name: value for name, value in self.terms().items() if name != "secure"}
        return repr(sorted(said.items())), *(adapter.sha256 for _, adapter in sorted(self.adapters().items()))

    @classmethod
    def from_terms(cls, terms: Terms, adapters: Mapping[str, Adapter]) -> Self:
        """One client's task again, from its terms and its adapters; `correction` among them makes it one of SCAFFOLD.

        Raises `UpdateRejected` unless they are just those of a task.
        """
        said = read_terms(terms, FitTerms, "the task")
        only(adapters, adapter_names(said.phase, said.train.preference) | ({"correction"} & set(adapters)), "the task")
        told = OwnCorrection(adapters["correction"]) if "correction" in adapters else None
        reference = adapters.get("reference")
        try:
            about, how = (said.run_id, said.round, said.phase), (said.model, said.train, said.seed)
            return cls(*about, adapters["adapter"], reference, *how, told, said.privacy, secure=said.secure)
        except AdapterError as error:
            raise UpdateRejected(f"the task's reference does not fit its adapter: {error}") from error

    @cached_property
    def trained(self) -> Adapter:
        """The part of the adapter that a client trains, unless its own rank is lower; the rest stays frozen."""
        return leading(self.adapter, self.model.lora_r)

    def require_rank(self, rank: int) -> None:
        """Raises `AdapterError` when no client may train so many directions."""
        most = self.model.lora_r
        if rank > most:
            raise AdapterError(f"rank {rank} is more than LORA_R={most}")
        if rank < most and not self.train.lower_ranks:
            raise AdapterError(
                f"rank {rank} is less than LORA_R={most}, which only LORA_AGGREGATION=svd and exact allow"
            )

    def update(
        self,
        client_id: int,
        adapter: AdapterSource,
        contribution: Contribution,
        report: TrainingReport,
        control: AdapterSource | None = None,
    ) -> ClientUpdate:
        """The answer of one client: of this run, round and phase."""
        whose = self.run_id, client_id, self.round, self.phase
        return ClientUpdate(*whose, adapter, contribution, report, control)

    def require_update_form(self, form: Form) -> None:
        """Raises `AdapterError` unless an update may have these names and shapes: those of `trained`, or of a lower
        rank where that is allowed.
        """
        rank = rank_of(form)
        if rank not in (0, rank_of(self.trained.form)):
            self.require_rank(rank)
            of_rank(self.trained.form, rank).require(form)
        else:
            self.trained.form.require(form)

    def status(self, client_id: int, state: ClientState) -> ClientStatus:
        """A heartbeat of one client of this process in this round, now."""
        return status_now(self, client_id, state)

    def client_seed(self, client_id: int) -> int:
        """The seed of one client's draws in this round."""
        return named_seed(self.seed, self.phase, self.round, client_id)


@dataclass(frozen=True, eq=False)
class ClientUpdate:
    """One client's answer to one task. `adapter.load()` is the adapter, in memory or still in a file: a thousand
    updates need not fit.

    `control` is the client's next c_i, where the task had corrections. The norms are the server's own, measured once,
    when the update comes in (`fccl.federation.bounds`).

    >>> from fccl.testing.toy import MODEL, TRAIN, ToyLearner, adapter, shard
    >>> task = FitTask("run", 0, "sft", adapter(1.0, 2.0, 3.0), None, MODEL, TRAIN, seed=7)
    >>> update = ToyLearner().fit(task, shard(2), lambda status: None)
    >>> update.client_id, update.contribution.num_samples, update.adapter.load().form == task.adapter.form
    (2, 3, True)
    """

    run_id: str
    client_id: int
    round: int
    phase: Phase
    adapter: AdapterSource
    contribution: Contribution
    report: TrainingReport
    control: AdapterSource | None = None
    change_norm: float | None = None  # L2 norm of what it changed of the round's adapter
    control_norm: float | None = None  # and of the control variate
    signed: str = ""  # the message that came with it, where the client signs
    sent: int | None = None  # bytes of the update as it travelled, where a codec made them fewer
    masked: MaskedBy | None = None  # where its numbers are masked words, which only the sum of a round gives a meaning

    def require_answers(self, task: FitTask) -> None:
        """Raises `UpdateRejected` unless this update answers `task`: same run, round and phase, a form that it may
        have, a control if asked.
        """
        for field in ("run_id", "round", "phase"):
            mine, asked = getattr(self, field), getattr(task, field)
            if mine != asked:
                raise UpdateRejected(f"the update is of {field} {mine!r}, the task of {asked!r}")
        require_loss(self.contribution.avg_loss, task.phase, task.train.preference)
        asked_for = task.secure and task.secure.cohort.nonce
        if (self.masked and self.masked.nonce) != asked_for:
            raise UpdateRejected("the update is not masked for the sum of this round")
        if (self.control is None) != (task.corrections is None):
            raise UpdateRejected(f"the update comes {'without' if self.control is None else 'with'} a control variate")
        try:
            task.require_update_form(self.adapter.form)
            if self.control is not None:
                task.adapter.form.require(self.control.form)
        except AdapterError as error:
            raise UpdateRejected(str(error)) from error

    def with_frozen(self, before: Adapter) -> ClientUpdate:
        """The same update with the directions of `before` that stayed frozen; itself when it trained all of them."""
        return self if self.adapter.form == before.form else replace(self, adapter=WithFrozen(self.adapter, before))

    def change_from(self, before: Adapter) -> float:
        """The L2 norm of what it changed of `before`, the round's adapter.

        Loads the update only where that was not measured before.
        """
        return self.adapter.load().distance(before) if self.change_norm is None else self.change_norm
