"""Requests of kind `owntest`: whom a phase has helped, scored by every client on the examples that it keeps apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from fccl.adapters.adapter import Adapter
from fccl.messages.fit import FitSettings, FitTask
from fccl.messages.requests import Reply, Terms, adapter_names, only, read_terms, require_reference, spelt
from fccl.specs import ModelSpec, Phase, Round, RunId, Samples, SignedLoss, TrainSpec

MOST_ROUNDS = 10_000  # of a phase: their rates are sent
Rate = Annotated[float, Field(gt=0, le=1e6)]


class OwnTest(Reply):
    """The mean losses of adapters on one client's own test examples, in the phase's unit."""

    examples: Samples
    units: Samples  # response tokens or pairs: each loss is the mean over so many
    base: SignedLoss  # of the base model
    alone: SignedLoss  # of an adapter that this client has trained by itself, for as many rounds
    together: SignedLoss  # of the phase's global adapter
    personal: SignedLoss | None = None  # of the client's personal adapter, which nobody else has


class OwnTestTerms(FitSettings):
    """An `OwnTestTask` but for its adapters."""

    kind: Literal["owntest"]
    step: Literal[0]
    run_id: RunId
    round: Round
    phase: Phase
    rates: Annotated[tuple[Rate, ...], Field(min_length=1, max_length=MOST_ROUNDS)]
    batch_size: Annotated[int, Field(ge=1)]


@dataclass(frozen=True, eq=False)
class OwnTestTask:
    """Asks at the end of a phase, in its last round. `adapter` is the phase's global adapter, `start` what the phase
    began with; `train` and `seed` are those of its rounds, `rates` each round's peak learning rate.
    """

    run_id: str
    round: int
    phase: Phase
    adapter: Adapter
    start: Adapter
    reference: Adapter | None
    model: ModelSpec
    train: TrainSpec
    seed: int
    rates: tuple[float, ...]
    batch_size: int  # sequences in a forward pass of scoring
    kind: ClassVar[str] = "owntest"
    step: ClassVar[int] = 0
    answered_by: ClassVar[type[OwnTest]] = OwnTest
    privacy: ClassVar[None] = None  # its figures have no noise: under differential privacy nobody asks for them
    secure: ClassVar[None] = None  # and no masks

    def __post_init__(self) -> None:
        require_reference(self.phase, self.train.preference, self.reference)

    def terms(self) -> Terms:
        """The task as JSON, but for its adapters."""
        return spelt(self, OwnTestTerms)

    def adapters(self) -> Mapping[str, Adapter]:
        """`adapter`, `start`, and in VA rounds whose loss takes one `reference`."""
        named = {"adapter": self.adapter, "start": self.start}
        return named | ({} if self.reference is None else {"reference": self.reference})

    @classmethod
    def from_terms(cls, terms: Terms, adapters: Mapping[str, Adapter]) -> Self:
        """The task again. Raises `UpdateRejected` unless terms and adapters are just those of one."""
        said = read_terms(terms, OwnTestTerms, "the owntest request")
        only(adapters, adapter_names(said.phase, said.train.preference) | {"start"}, "the request")
        return cls(
            said.run_id,
            said.round,
            said.phase,
            adapters["adapter"],
            adapters["start"],
            adapters.get("reference"),
            said.model,
            said.train,
            said.seed,
            said.rates,
            said.batch_size,
        )

    def fit_task(self, number: int, adapter: Adapter) -> FitTask:
        """The training task of the `number`-th round that a client does alone, from 0, without FedProx's pull."""
        changes = {"prox_mu": 0.0, "learning_rate": self.rates[number], "personal": None}
        train = self.train.model_copy(update=changes)
        begun = max(0, self.round + 1 - len(self.rates))
        return FitTask(self.run_id, begun + number, self.phase, adapter, self.reference, self.model, train, self.seed)
