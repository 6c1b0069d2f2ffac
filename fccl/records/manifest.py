"""The data manifest: sources, hashes, counts, topics by client."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fccl.specs import DataSpec, Grown, Phase, Value, exactly


class SourceReport(Value):
    """The counts of one source."""

    phase: Phase
    name: str
    kind: Literal["builtin", "file", "hub", "synthetic"]
    sha256: str  # of the local file; of the examples as read, for the built-in data, the hub and synthetic pairs
    revision: str = ""  # of a hub data set
    rows_read: int = Field(ge=0)
    bad_rows: int = Field(default=0, ge=0)  # malformed, left out
    bad_row_reasons: tuple[str, ...] = ()  # the first few
    nothing_to_learn: int = Field(default=0, ge=0)  # left out: an empty answer, equal ratings, twice the same answer
    marked: int = Field(default=0, ge=0)  # left out: the row itself says that it is not to be learnt
    answers_passed_over: int = Field(default=0, ge=0)  # of rated rows: without a text or a rating
    # of rated rows: answers whose rating of 10 their own fine-grained score contradicts
    false_tens: int = Field(default=0, ge=0)
    columns_not_used: tuple[str, ...] = ()  # that hold something; with the reason, where it is not plain
    duplicates: int = Field(default=0, ge=0)  # dropped
    examples: int = Field(ge=1)  # what was kept, sampled down if a maximum was set


class ClientOrigins(Value):
    """The names in the data that became each client, where a column of the data names clients."""

    members: tuple[int, ...]  # of each client: how many names it stands for
    names: tuple[tuple[str, ...], ...] = ()  # of each client; empty where they are not to be said
    left_out: int = Field(default=0, ge=0)  # names with too few examples
    left_out_examples: int = Field(default=0, ge=0)  # training examples of these


class Manifest(Grown):
    """`manifest.json`: the prepared data, its sources and its settings. Written last, it completes the folder."""

    LATER = frozenset({"origins", "kept_apart"})

    version: Annotated[int, exactly(1)] = 1
    spec: DataSpec
    sources: tuple[SourceReport, ...]  # SFT, then VA
    counts: dict[str, dict[Phase, int]]  # split -> kind -> examples; "train" as partitioned, before noise
    topics: tuple[str, ...]  # by number of training examples, most first
    # kind -> client -> examples of each topic, in the order of `topics`
    topics_by_client: dict[Phase, tuple[tuple[int, ...], ...]]
    # kind -> client -> examples that it keeps for its own test
    kept_apart: dict[Phase, tuple[int, ...]] = Field(default_factory=dict)
    origins: ClientOrigins | None = None  # where a column names the clients
    noisy_clients: tuple[int, ...] = ()  # whose shards were spoilt on purpose, by the spec's `noise_kind`
    files: dict[str, str]  # path below the folder -> SHA-256, of every data file

    def samples_by_client(self) -> dict[Phase, dict[int, int]]:
        """Kind -> client -> examples in its shard file, noise included."""
        return {
            phase: {client: sum(counts) for client, counts in enumerate(table)}
            for phase, table in self.topics_by_client.items()
        }
