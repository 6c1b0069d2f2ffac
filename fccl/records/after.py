"""Records of questions that are asked after a run: replays, influence, checks, clients that were taken out.

None of them lies in the run's own folder: `AfterPaths` says where each is.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fccl.records.run import Validation
from fccl.specs import Phase
from fccl.specs.values import Value

Measure = Literal["instructions", "pairs"]  # what a model's loss is taken on


class ReplayedRound(Value):
    """A round as it was, and as it would have been."""

    round: int = Field(ge=0)
    phase: Phase
    clients: tuple[int, ...]  # that counted in the replay
    weights: tuple[float, ...]  # theirs
    trained: bool = False  # anew, in the place of kept updates
    recorded: Validation | None = None  # of the run's own global adapter
    replayed: Validation | None = None  # of the replay's
    same: bool  # whether both adapters have the same bytes
    adapter_sha256: str


class Replay(Value):
    """A run aggregated again from its kept updates, with what was changed."""

    run_id: str
    time: float
    changes: dict[str, str] = Field(default_factory=dict)  # settings that were given another value
    without: tuple[int, ...] = ()  # clients that were left out
    by_round: bool = False  # each round from the adapter that it began with in the run
    retrained_from: int | None = None  # the first round whose clients trained anew
    says: str  # what the figures are, and are not
    rounds: tuple[ReplayedRound, ...]
    adapter_sha256: str  # of the last round


class ClientInfluence(Value):
    """A client's influence: by how much it lowers the final model's loss. Below 0 it raises it."""

    client_id: int = Field(ge=0)
    rounds: int = Field(ge=0)  # in which it counted
    left_out: float  # the loss without it, minus the loss with all
    shapley: float  # its mean part in the fall of the loss, over the orders in which clients may join
    error: float = Field(ge=0)  # the standard error of that; 0 of exact values


class MeasuredInfluence(Value):
    """The influence of every client on one loss of the final model."""

    measure: Measure
    unit: str
    examples: int = Field(ge=1)
    before: float  # the loss of the adapter that the first kept round began with
    after: float  # the loss of the final model
    clients: tuple[ClientInfluence, ...]


class Influence(Value):
    """The influence of every client on a run's final model, by the kept updates."""

    run_id: str
    time: float
    first_round: int = Field(ge=0)
    rounds: int = Field(ge=1)
    orders: int = Field(ge=0)  # that were drawn; 0: exact values
    coalitions: int = Field(ge=1)  # whose model was made and measured
    says: str
    measures: tuple[MeasuredInfluence, ...]


class HelpsWhom(Value):
    """Whose update lowers whose held-out loss in one phase: a row for each update's client, a column for each owner."""

    phase: Phase
    rounds: int = Field(ge=1)  # kept, of the phase
    updates: tuple[int, ...]
    owners: tuple[int, ...]  # of held-out examples
    examples: tuple[int, ...]  # of each owner
    falls: tuple[tuple[float, ...], ...]  # of the loss, in the phase's unit; above 0 the update helps


class ClientMatrix(Value):
    """Client by client, for every phase that a run has kept rounds of."""

    run_id: str
    time: float
    phases: tuple[HelpsWhom, ...]


Outcome = Literal["ok", "failed", "not checked"]


class Finding(Value):
    """One thing that was checked, and how that ended."""

    name: str
    outcome: Outcome
    detail: str


class RunCheck(Value):
    """A run's result, checked against its files."""

    run_id: str
    time: float
    fccl: str  # the version that checked it
    adapter_sha256: str  # of the final adapter's file, or empty
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing that was checked failed."""
        return all(finding.outcome != "failed" for finding in self.findings)


class WhatIsLeft(Value):
    """The mean loss of one model on the client's own training examples, in the phase's unit."""

    model: str
    phase: Phase
    examples: int = Field(ge=1)
    loss: float


class Forgotten(Value):
    """A client that was taken out of a run."""

    run_id: str
    time: float
    client_id: int = Field(ge=0)
    first_round: int = Field(ge=0)  # of its first update: from here on all was trained anew
    seconds: float = Field(ge=0)
    says: str
    adapter_sha256: str  # of the run that went on without it
    never_sha256: str  # of the run that never had it
    left: tuple[WhatIsLeft, ...]
    removed: tuple[str, ...]  # its files, which are gone
    still: tuple[str, ...]  # what was made with its updates and is still there
