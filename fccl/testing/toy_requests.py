"""Toy answers to requests of other kinds than `fit`: an evaluator of three numbers, and a kind of two steps.

The two steps are a masked sum in small. In the first each client publishes a number; in the second it sends its count
of samples under masks made of all numbers. The masks cancel in the sum, so the second step works only when the replies
to the first have reached every client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from fccl.adapters.adapter import Adapter
from fccl.data.shards import ClientShard
from fccl.errors import TrainingError
from fccl.messages import (
    ClientEvaluation,
    EvaluateTask,
    OwnTest,
    OwnTestTask,
    Reply,
    Service,
    StatusListener,
    Terms,
    read_terms,
    status_now,
)
from fccl.specs import Phase, Round, RunId, Value


@dataclass(frozen=True)
class ToyEvaluator:
    """The loss of three numbers: their squared distance from the client's own. `broken` clients fail."""

    broken: frozenset[int] = frozenset()
    asked: ClassVar[type[EvaluateTask]] = EvaluateTask

    def answer(self, request: EvaluateTask, shard: ClientShard, on_status: StatusListener) -> ClientEvaluation:
        """One client's loss."""
        if shard.client_id in self.broken:
            raise TrainingError("the loss is not finite")
        on_status(status_now(request, shard.client_id, "evaluating"))
        moved = request.adapter.tensors["w"] - float(shard.client_id)
        if request.reference is not None:
            moved = moved - request.reference.tensors["w"]
        examples = len(shard.of(request.phase))
        loss = float((moved.double() ** 2).sum())
        return ClientEvaluation(client_id=shard.client_id, loss=loss, units=3, examples=examples)


@dataclass(frozen=True)
class ToyOwnTester:
    """Own tests of three numbers: the squared distance of each adapter from the client's own number. The personal
    adapter lies between that and the global one, by the task's pull.
    """

    asked: ClassVar[type[OwnTestTask]] = OwnTestTask

    def answer(self, request: OwnTestTask, shard: ClientShard, on_status: StatusListener) -> OwnTest:
        """One client's means."""
        on_status(status_now(request, shard.client_id, "evaluating"))
        together, spec = _distance(request.adapter, shard.client_id), request.train.personal
        losses = {"base": 9.0, "alone": _distance(request.start, shard.client_id), "together": together}
        own = {} if spec is None else {"personal": together * spec.pull / (1 + spec.pull)}
        return OwnTest(client_id=shard.client_id, examples=3, units=3, **losses, **own)


def _distance(adapter: Adapter, client_id: int) -> float:
    return float(((adapter.tensors["w"].double() - client_id) ** 2).sum())


class PublicNumber(Reply):
    """The answer to the first step."""

    number: int


class MaskedCount(Reply):
    """The answer to the second step."""

    count: int


class _NumbersTerms(Value):
    kind: Literal["toysum"]
    step: Literal[0, 1]
    run_id: RunId
    round: Round
    phase: Phase
    numbers: tuple[tuple[int, int], ...] = ()  # client and number, in client order


@dataclass(frozen=True)
class AskNumbers:
    """The first step: every client's public number."""

    run_id: str
    round: int
    phase: Phase
    kind: ClassVar[str] = "toysum"
    step: ClassVar[int] = 0
    answered_by: ClassVar[type[PublicNumber]] = PublicNumber

    def terms(self) -> Terms:
        """The request as JSON."""
        return {"kind": "toysum", "step": 0, "run_id": self.run_id, "round": self.round, "phase": self.phase}

    def adapters(self) -> Mapping[str, Adapter]:
        """It speaks of none."""
        return {}

    @classmethod
    def from_terms(cls, terms: Terms, adapters: Mapping[str, Adapter]) -> Self:
        """The request again."""
        said = read_terms(terms, _NumbersTerms, "the request")
        return cls(said.run_id, said.round, said.phase)


@dataclass(frozen=True)
class AskMaskedCounts:
    """The second step: every client's count, under masks made of the numbers of the first."""

    run_id: str
    round: int
    phase: Phase
    numbers: tuple[tuple[int, int], ...]
    kind: ClassVar[str] = "toysum"
    step: ClassVar[int] = 1
    answered_by: ClassVar[type[MaskedCount]] = MaskedCount

    def terms(self) -> Terms:
        """The request as JSON."""
        said = _NumbersTerms(
            kind="toysum", step=1, run_id=self.run_id, round=self.round, phase=self.phase, numbers=self.numbers
        )
        return said.model_dump(mode="json", exclude_defaults=True)

    def adapters(self) -> Mapping[str, Adapter]:
        """It speaks of none."""
        return {}

    @classmethod
    def from_terms(cls, terms: Terms, adapters: Mapping[str, Adapter]) -> Self:
        """The request again."""
        said = read_terms(terms, _NumbersTerms, "the request")
        return cls(said.run_id, said.round, said.phase, said.numbers)


@dataclass(frozen=True)
class Numbers:
    """Answers the first step."""

    asked: ClassVar[type[AskNumbers]] = AskNumbers

    def answer(self, request: AskNumbers, shard: ClientShard, on_status: StatusListener) -> PublicNumber:
        """The client's number."""
        on_status(status_now(request, shard.client_id, "evaluating"))
        return PublicNumber(client_id=shard.client_id, number=number_of(shard.client_id))


@dataclass(frozen=True)
class MaskedCounts:
    """Answers the second step."""

    asked: ClassVar[type[AskMaskedCounts]] = AskMaskedCounts

    def answer(self, request: AskMaskedCounts, shard: ClientShard, on_status: StatusListener) -> MaskedCount:
        """The client's count of samples under its masks."""
        on_status(status_now(request, shard.client_id, "evaluating"))
        mine, masks = number_of(shard.client_id), 0
        for other, number in request.numbers:
            sign = (other > shard.client_id) - (other < shard.client_id)
            masks += sign * (mine * number % 1009)
        return MaskedCount(client_id=shard.client_id, count=len(shard.sft) + masks)


def number_of(client_id: int) -> int:
    """A client's public number."""
    return 7 * client_id + 3


def toy_services(broken: tuple[int, ...] = ()) -> tuple[Service, ...]:
    """The services of every toy client."""
    return (ToyEvaluator(frozenset(broken)), ToyOwnTester(), Numbers(), MaskedCounts())
