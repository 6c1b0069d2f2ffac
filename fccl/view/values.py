"""A run as a reader sees it at one moment: the records as values, the long histories as tables.

A table is a pandas `DataFrame` with exactly the columns that its name in this file lists, in that order, and rows in
the order of the log. Rounds count from 0 as the files do; a screen adds 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from fccl.display.words import plural
from fccl.paths import LogPaths
from fccl.records.audit import Audit
from fccl.records.comparison import Comparison
from fccl.records.evaluation import EvaluationReport
from fccl.records.forecast import Forecast
from fccl.records.late import LateUpdate
from fccl.records.manifest import Manifest
from fccl.records.privacy import RoundPrivacy
from fccl.records.rejection import Rejection
from fccl.records.run import (
    ClientStatus,
    OwnTestResult,
    PhaseEnd,
    RunEvent,
    RunInfo,
    RunState,
    Validation,
    Watched,
)
from fccl.records.secure import SecureRound
from fccl.records.sites import SitesRecord
from fccl.specs import Phase, PreferenceSpec

# One row a round.
ROUNDS = {
    "round": "int64",
    "phase": "str",  # sft or va
    "time": "float64",  # seconds since 1970, when the round was complete
    "seconds": "float64",
    "selected": "int64",  # clients asked
    "clients": "int64",  # clients aggregated
    "excluded": "int64",
    "effective_clients": "float64",  # 1 / sum w²
    # nats per response token (sft), DPO loss per pair (va); NaN when the run has no validation
    "validation_loss": "float64",
    "preference_accuracy": "float64",  # va rounds, 0 ... 1; else NaN
    "update_norm": "float64",
    "adapter_sha256": "str",
    "aggregation": "str",  # as `AGGREGATION` spells it
    "lora_error": "float64",  # 0 ..., a share of the norm; NaN when it was not measured
    "verify_examples": "float64",  # these four: NaN in a round that the server did not verify
    "verify_seconds": "float64",
    # of the mean with the prior's weights, on these examples; in the unit of validation_loss; NaN when it is not finite
    "loss_prior": "float64",
    "loss_weights": "float64",  # of the mean with the round's weights
    # validation loss of the aggregate, before the server learned from it; NaN where it did not
    "aggregate_loss": "float64",
    "learn_seconds": "float64",
    # bytes of adapters to and from all clients of the round, as UPDATE_CODEC writes them; NaN in earlier versions' runs
    "bytes_up": "float64",
    "bytes_down": "float64",
    "bytes_whole": "float64",  # of as many whole adapters, both ways together
}
# One row for every client that was aggregated in a round.
SHARES = {
    "round": "int64",
    "phase": "str",
    "client": "int64",
    "weight": "float64",  # 0 ... 1, sums to 1 over a round
    "sample_share": "float64",  # 0 ... 1, sums to 1 over a round
    "score": "float64",
    "avg_loss": "float64",  # as the client reported it; NaN where it reports nothing, as `sample_share`
    "num_samples": "int64",  # 0 where it reports nothing
    "prior": "float64",  # the weight before the server verified; NaN where there was no prior
    # how much the update counted in the end; NaN where the aggregation took the weights as they are
    "counted": "float64",
    # standard errors by which the phase's rounds so far speak against the client; NaN where the rule remembers none
    "standing": "float64",
}
# One row for each client that was excluded from a round.
EXCLUSIONS = {"round": "int64", "phase": "str", "client": "int64", "reason": "str"}
# One row for each client that took no part in the phase of a round.
DECLINES = {"round": "int64", "phase": "str", "client": "int64"}
# One row for every line of client_metrics.jsonl.
METRICS = {
    "round": "int64",
    "phase": "str",
    "client": "int64",
    "time": "float64",
    "avg_loss": "float64",
    "num_samples": "int64",
    "seconds": "float64",
    "tokens": "int64",
    "tokens_per_second": "float64",
    "steps": "int64",
    "truncated": "int64",
    "update_norm": "float64",
}


Membership = Literal["joined", "left", "revoked"]


@dataclass(frozen=True)
class Move:
    """A client that joined an open federation before a round, or left it."""

    round: int
    client_id: int
    what: Membership


@dataclass(frozen=True)
class RoundWatched:
    """A round that PATIENCE or RESULT_ROUND=best watched; `end` where it was the last of its phase."""

    round: int
    phase: Phase
    watched: Watched | None
    end: PhaseEnd | None


@dataclass(frozen=True, eq=False, repr=False)
class RunView:
    """One run as its folder holds it now. Any part may still be missing; no value is half-read."""

    paths: LogPaths
    run_id: str  # empty while there is no run
    info: RunInfo | None
    state: RunState | None
    events: tuple[RunEvent, ...]
    rounds: pd.DataFrame
    shares: pd.DataFrame
    exclusions: pd.DataFrame
    declines: pd.DataFrame
    metrics: pd.DataFrame
    statuses: tuple[ClientStatus, ...]  # the newest heartbeat of every client, by client number
    evaluation: EvaluationReport | None
    manifest: Manifest | None
    unreadable: int  # complete lines that are no record of this run's form
    base: Validation | None  # the base model on the validation split
    # clients whose newest heartbeat is in EXCHANGE_DIR: processes of their own, which beat when idle too
    beating: frozenset[int] = frozenset()
    heard: Mapping[int, float] = field(default_factory=dict)  # when these heartbeats came, by the reader's clock
    written: float | None = None  # when the logs were last written to, by the reader's clock
    own_tests: tuple[tuple[Phase, OwnTestResult], ...] = ()  # of phases that have ended
    privacy: tuple[tuple[int, Phase, RoundPrivacy], ...] = ()  # by round: what is spent after it
    secure: tuple[SecureRound, ...] = ()  # of rounds whose updates are known by their sum alone
    late: tuple[tuple[int, Phase, LateUpdate], ...] = ()  # late updates, with the round that they came to count in
    watched: tuple[RoundWatched, ...] = ()  # by PATIENCE or RESULT_ROUND=best, in the order of the rounds
    moves: tuple[Move, ...] = ()  # of members of an open federation, in the order of the rounds
    plan: Forecast | None = None  # that was made for the run
    audit: Audit | None = None  # that lies beside the run
    sites: SitesRecord | None = None  # of a run over Flower
    sites_heard: float = 0.0  # when that was written, by the reader's clock
    furthest: float = 0.0  # 0 ... 1: the greatest progress that this reader has seen of the run

    def __repr__(self) -> str:
        """Folder, run and complete rounds: what a notebook shows of it."""
        done = len(self.rounds)
        told = f"{done} of {plural(self.state.total_rounds, 'round')}" if self.state else plural(done, "round")
        return f"<RunView of {self.paths.root}/: run {self.run_id!r}, {told}>"

    @property
    def preference(self) -> PreferenceSpec:
        """The loss of the run's VA rounds; the usual one where the run does not say it."""
        return self.info.preference if self.info else PreferenceSpec()

    @property
    def exists(self) -> bool:
        return bool(self.run_id)

    def heard_at(self, status: ClientStatus) -> float:
        """The time at which a heartbeat came, by the reader's clock; by its writer's where nobody has listened."""
        return self.heard.get(status.client_id, status.time)

    @property
    def last_record(self) -> float:
        """The time of the newest record, by the clock of the server; 0 when there is none."""
        times = [self.events[-1].time if self.events else 0.0, self.info.created if self.info else 0.0]
        return max(times + [float(table["time"].iloc[-1]) for table in (self.rounds, self.metrics) if len(table)])


@dataclass(frozen=True)
class RunEntry:
    """A run that can be chosen: the one in `LOG_DIR`, or one that is archived below it."""

    run_id: str
    created: float  # seconds since 1970
    current: bool
    paths: LogPaths


Standing = Literal["waiting", "running", "silent", "finished", "interrupted", "failed"]
ClientStanding = Literal["training", "done", "waiting", "declined", "late", "dead", "failed"]


@dataclass(frozen=True)
class ClientRow:
    """One client now. `age_s` is the age of its heartbeat; None when it has none yet.

    `declines` is the phase in which it takes no part, where its standing is `declined`.
    """

    client: int
    standing: ClientStanding
    status: ClientStatus | None
    age_s: float | None
    declines: Phase | None = None


@dataclass(frozen=True)
class RunStatus:
    """The run in a few figures."""

    standing: Standing
    message: str  # what the last event says, where it says something
    phase: Phase | Literal["done"] | None
    round: int  # complete rounds of both phases
    total_rounds: int
    progress: float  # 0 ... 1, the open round counted by its clients' steps
    seconds_left: float | None  # None: nothing to judge by yet, or nothing left
    clients: tuple[ClientRow, ...]
    validation_loss: float | None  # of the last complete round
    validation_phase: Phase | None
    preference_accuracy: float | None
    base_loss: float | None  # nats per response token; to compare with an SFT round's loss only
    effective_clients: float | None
    aggregated: int | None  # clients in the last complete round


@dataclass(frozen=True)
class ExchangeFile:
    """One file of the protocol that lies in the exchange directory."""

    name: str
    kind: str  # as in `ExchangeName`
    round: int | None
    client: int | None
    bytes: int
    modified: float


@dataclass(frozen=True)
class ExchangeView:
    """The exchange directory now. `exists` is False when there is no such directory (a run in one process has none)."""

    exists: bool
    files: tuple[ExchangeFile, ...]  # by round, kind, client
    rejected: tuple[Rejection, ...]  # newest first
    rejected_total: int
    strangers: tuple[str, ...]  # names that are not of the protocol


@dataclass(frozen=True, eq=False)
class Compared:
    """The results of `fccl compare`, and when they were written (seconds since 1970)."""

    results: Comparison
    written: float
