"""Requests of kind `evaluate`: the loss of an adapter on every client's own shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from pydantic import Field

from fccl.adapters.adapter import Adapter
from fccl.messages.requests import (
    Reply,
    Terms,
    adapter_names,
    only,
    read_terms,
    require_reference,
    spelt,
    status_now,
    with_reference,
)
from fccl.records.run import ClientState, ClientStatus
from fccl.specs import ModelSpec, Phase, PreferenceSpec, Round, RunId, Samples, SignedLoss, Threads, Value


class ClientEvaluation(Reply):
    """One client's loss: nats per response token (SFT), or the preference loss per pair (VA)."""

    loss: SignedLoss
    units: Samples  # response tokens or pairs: the loss is the mean over so many
    examples: Samples


class EvaluateTerms(Value):
    """An `EvaluateTask` but for its adapters."""

    kind: Literal["evaluate"]
    step: Literal[0]
    run_id: RunId
    round: Round
    phase: Phase
    model: ModelSpec
    batch_size: int = Field(ge=1)
    preference: PreferenceSpec
    threads: Threads = 0


@dataclass(frozen=True, eq=False)
class EvaluateTask:
    """Asks for the loss of `adapter` on each client's shard of the phase; in VA rounds against `reference`, where the
    loss takes one.

    losses = {answer.client_id: answer for answer in transport.ask(task, [0, 1, 2])}
    """

    run_id: str
    round: int
    phase: Phase
    adapter: Adapter
    reference: Adapter | None
    model: ModelSpec
    batch_size: int  # sequences in a forward pass
    preference: PreferenceSpec = field(default_factory=PreferenceSpec)
    threads: int = 0  # 0: as many as torch takes
    kind: ClassVar[str] = "evaluate"
    step: ClassVar[int] = 0
    answered_by: ClassVar[type[ClientEvaluation]] = ClientEvaluation

    def __post_init__(self) -> None:
        require_reference(self.phase, self.preference, self.reference)

    def terms(self) -> Terms:
        """The task as JSON, but for its adapters."""
        return spelt(self, EvaluateTerms)

    def adapters(self) -> Mapping[str, Adapter]:
        """`adapter`, and in VA rounds `reference`."""
        return with_reference(self.adapter, self.reference)

    @classmethod
    def from_terms(cls, terms: Terms, adapters: Mapping[str, Adapter]) -> Self:
        """The task again. Raises `UpdateRejected` unless terms and adapters are just those of one."""
        said = read_terms(terms, EvaluateTerms, "the evaluate request")
        only(adapters, adapter_names(said.phase, said.preference), "the request")
        return cls(
            said.run_id,
            said.round,
            said.phase,
            adapters["adapter"],
            adapters.get("reference"),
            said.model,
            said.batch_size,
            said.preference,
            said.threads,
        )

    def status(self, client_id: int, state: ClientState) -> ClientStatus:
        """A heartbeat of one client of this process, at work on this, now."""
        return status_now(self, client_id, state)
