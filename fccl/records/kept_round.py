"""`kept/round_R/round.json`: the inputs of a round. Its result is in its record, in `progress.jsonl`.

The updates' files are named by hash in the round's own record (`fccl.records.run.ArrivedUpdate`).
"""

from __future__ import annotations

from pydantic import Field

from fccl.records.run import Contribution, KeptControl, MedianNorms, TrainingReport
from fccl.specs import Grown, ModelSpec, TrainSpec


class KeptUpdate(Grown):
    """One client's answer, without the numbers of its update."""

    LATER = frozenset({"signed", "trained_for"})

    client_id: int = Field(ge=0)
    rank: int = Field(ge=0)  # directions that it trained; 0 of an adapter without LoRA factors
    contribution: Contribution
    report: TrainingReport
    change_norm: float | None
    control_norm: float | None
    signed: str = ""  # the client's message with its signature, as `fccl.transports.exchange.wire` has it
    trained_for: int | None = Field(default=None, ge=0)  # of a late update: the round before


class KeptInputs(Grown):
    """A round's task, its state before, and who answered. Hashes are of files' bytes."""

    LATER = frozenset({"before_sha256", "memory"})

    run_id: str
    round: int = Field(ge=0)
    model: ModelSpec
    train: TrainSpec
    seed: int
    adapter_sha256: str  # of the file: the adapter that the round began with
    reference_sha256: str = ""  # `Adapter.sha256` of the reference, in VA rounds
    server_sha256: str = ""  # of the file: the aggregation rule's state before; empty when it carried no state
    controls: tuple[KeptControl, ...] | None = None  # SCAFFOLD's c_i before the round; None under other rules
    norms: MedianNorms  # before the round
    memory: dict[int, tuple[float, ...]] = Field(default={})  # of the weighing rule before the round, by client
    examples: tuple[int, ...] = ()  # places in the learn split of those that the weights were made from
    lag_sha256: str = ""  # of the file: what UPDATE_CODEC had left out of the adapter; empty where that was nothing
    learn: TrainSpec | None = None  # how the server trained the aggregate on its learn split, if it did
    updates: tuple[KeptUpdate, ...]
    before_sha256: str = ""  # of the file: the adapter that the round before began with, where an update is late
