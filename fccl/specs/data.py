"""Data and its partition to clients as values."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from fccl.specs.bounds import Phase
from fccl.specs.values import Grown, Value

SmallClients = Literal["merge", "drop"]


class ClientColumn(Value):
    """Clients that the data names: a column of its rows says whose each row is."""

    column: str = Field(min_length=1)
    min_examples: int = Field(default=1, ge=1)  # training examples of both kinds together; with fewer it is small
    small: SmallClients = "merge"  # small clients become one that is not, or are left out
    anonymize: bool = False  # the manifest does not say the names


class PartitionSpec(Grown):
    """The partition of the training split to the clients."""

    LATER = frozenset({"clients"})

    num_clients: int = Field(ge=0)  # 0: as many as `clients` finds; none where the data is the server's alone
    alpha: float | None = Field(gt=0)  # of the Dirichlet distribution, per topic; None is infinity, that is IID
    size_skew: float = Field(default=1.0, ge=1)  # largest client : smallest client, geometrically between
    num_topics: int = Field(default=8, ge=1)  # clusters, for free text without a label
    topic_column: str = ""
    clients: ClientColumn | None = None  # in the place of a draw
    seed: int = Field(ge=0)


SYNTHETIC = "synthetic"
NoiseKind = Literal["shuffled", "flipped", "duplicated"]


class DataSpec(Grown):
    """From sources to shards. Two equal specs over the same sources give the same bytes."""

    LATER = frozenset({"server_only", "client_test_share"})

    sft_data: str = Field(min_length=1)
    va_data: str = Field(min_length=1)  # a source, or `SYNTHETIC`: pairs made from the SFT data
    max_sft_examples: int = Field(default=0, ge=0)  # 0 takes all
    max_va_examples: int = Field(default=0, ge=0)
    test_examples: int = Field(ge=1)  # at most so many of each kind, and never more than a fifth
    learn_examples: int = Field(default=0, ge=0)  # likewise, a twentieth; 0 in manifests of earlier versions
    validation_examples: int = Field(ge=1)  # likewise, a twentieth
    skip_bad_rows: bool = False
    partition: PartitionSpec
    noisy_clients: tuple[int, ...] = ()
    noise_kind: NoiseKind = "shuffled"
    server_only: bool = False  # no shards: every client has its own data
    client_test_share: float = Field(default=0.0, ge=0, le=0.5)  # of a shard, kept apart for the client's own test

    @property
    def seed(self) -> int:
        return self.partition.seed

    def source(self, phase: Phase) -> str:
        return self.sft_data if phase == "sft" else self.va_data

    def max_examples(self, phase: Phase) -> int:
        return self.max_sft_examples if phase == "sft" else self.max_va_examples

    @model_validator(mode="after")
    def _has_clients(self) -> Self:
        if self.server_only != (self.partition.num_clients == 0 and self.partition.clients is None):
            raise ValueError("data without clients is the server's alone, and no other is")
        return self

    @property
    def client_column(self) -> str:
        """The column that names a row's client; empty where rows are dealt by a draw."""
        return self.partition.clients.column if self.partition.clients else ""

    def of_clients(self, count: int) -> Self:
        """The same with so many clients."""
        return self.model_copy(update={"partition": self.partition.model_copy(update={"num_clients": count})})

    def filled(self, made: DataSpec) -> Self:
        """The same with the number of clients in data that was made of it, where it leaves the number to the data."""
        return self if self.partition.num_clients else self.of_clients(made.partition.num_clients)
