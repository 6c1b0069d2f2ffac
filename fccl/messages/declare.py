"""Requests of kind `declare`: how many examples a client has that holds its own data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from fccl.adapters.adapter import Adapter
from fccl.messages.requests import Reply, Terms, only, read_terms, spelt
from fccl.specs import Count, Phase, Round, RunId, Value

MOST_MARKS = 40_000  # of 19 bytes: with them a request is shorter than the MiB that is read
Mark = Annotated[str, StringConstraints(pattern="^[0-9a-f]{16}$")]


class Declaration(Reply):
    """One client's training examples of each kind, and its instructions that the server's splits have too."""

    sft: Count
    va: Count
    overlap: Count | None = None  # None: not checked

    @model_validator(mode="after")
    def _of_what_it_has(self) -> Self:
        if self.overlap is not None and self.overlap > self.sft + self.va:
            raise ValueError("more of its examples are in the server's splits than it has")
        return self

    def samples(self, phase: Phase) -> int:
        """The examples of one kind."""
        return self.sft if phase == "sft" else self.va


class DeclareTerms(Value):
    """A `DeclareTask`: it comes with no adapters."""

    kind: Literal["declare"]
    step: Literal[0]
    run_id: RunId
    round: Round
    phase: Phase
    marks: tuple[Mark, ...] = Field(default=(), max_length=MOST_MARKS)


@dataclass(frozen=True)
class DeclareTask:
    """Asks a client for its numbers of examples, once in a run. `marks` are the salted hashes of the instructions in
    the server's splits (`fccl.data.overlap`), the run's id the salt; empty: overlap is not checked.
    """

    run_id: str
    round: int
    phase: Phase
    marks: tuple[str, ...] = ()
    kind: ClassVar[str] = "declare"
    step: ClassVar[int] = 0
    answered_by: ClassVar[type[Declaration]] = Declaration

    def terms(self) -> Terms:
        """The task as JSON."""
        return spelt(self, DeclareTerms)

    def adapters(self) -> Mapping[str, Adapter]:
        """No adapter."""
        return {}

    @classmethod
    def from_terms(cls, terms: Terms, adapters: Mapping[str, Adapter]) -> Self:
        """The task again. Raises `UpdateRejected` unless the terms are just those of one."""
        said = read_terms(terms, DeclareTerms, "the declare request")
        only(adapters, set(), "the request")
        return cls(said.run_id, said.round, said.phase, said.marks)
