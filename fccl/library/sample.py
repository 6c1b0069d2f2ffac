"""A small sample of prepared data, of the same form: what a probe trains on.

A client's part is evenly spaced in the order of length, so a step of the sample is as long as one of the whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fccl.data.shards import ClientShard, Examples, commit, server_examples, write_prepared
from fccl.paths import DataPaths
from fccl.records.manifest import Manifest
from fccl.specs import PHASES, DataSpec, Phase

Lengths = Mapping[Phase, Mapping[int, Sequence[int]]]  # phase -> client -> tokens of each example
_SPLITS = ("learn", "validation", "test")


@dataclass(frozen=True)
class Measure:
    """The size of a sample: `clients` of them, the largest, of which the largest has `examples` of each kind."""

    clients: int
    examples: int


def evenly(lengths: Sequence[int], count: int) -> list[int]:
    """The places of `count` examples, evenly spaced in the order of length.

    >>> evenly([30, 10, 20, 40], 2)
    [2, 3]
    """
    order, count = sorted(range(len(lengths)), key=lambda place: lengths[place]), min(count, len(lengths))
    return sorted(order[(2 * step + 1) * len(order) // (2 * count)] for step in range(count))


def sampled(shards: Sequence[ClientShard], lengths: Lengths, measure: Measure) -> tuple[ClientShard, ...]:
    """The shards of the sample, as clients 0, 1, …; their sizes are to each other as those of the whole."""
    chosen = sorted(shards, key=lambda shard: -len(shard.sft) - len(shard.va))[: measure.clients]
    most = {phase: max(len(shard.of(phase)) for shard in chosen) for phase in PHASES}

    def part(shard: ClientShard, phase: Phase) -> Any:
        known = lengths[phase].get(shard.client_id, ())
        count = min(len(known), -(-measure.examples * len(known) // max(1, most[phase])))
        return tuple(shard.of(phase)[place] for place in evenly(known, count)) if count else ()

    return tuple(
        replace(shard, client_id=number, sft=part(shard, "sft"), va=part(shard, "va"))
        for number, shard in enumerate(sorted(chosen, key=lambda shard: shard.client_id))
    )


def write_sample(
    data: DataPaths, manifest: Manifest, spec: DataSpec, shards: Sequence[ClientShard], to: DataPaths
) -> None:
    """Prepared data in a folder of its own: these shards, and the server's splits as they are. `spec` is the sample's.

    Raises `StorageError`.
    """
    server = {(split, phase): server_examples(data, split, phase) for split in _SPLITS for phase in PHASES}
    files = write_prepared(to, shards, server, None)
    topics = tuple(sorted({example.topic for shard in shards for phase in PHASES for example in shard.of(phase)}))
    counts = {phase: tuple(_count(shard.of(phase), topics) for shard in shards) for phase in PHASES}
    train = {phase: sum(map(sum, table)) for phase, table in counts.items()}
    apart = {phase: tuple(len(shard.tests_of(phase)) for shard in shards) for phase in PHASES}
    changes = {
        "kept_apart": apart if manifest.kept_apart else {},
        "spec": spec.of_clients(len(shards)),
        "counts": {**manifest.counts, "train": train},
        "topics": topics,
        "topics_by_client": counts,
        "noisy_clients": (),
        "origins": None,
        "files": files,
    }
    commit(to, manifest.model_copy(update=changes))


def _count(examples: Examples, topics: Sequence[str]) -> tuple[int, ...]:
    counts = Counter(example.topic for example in examples)
    return tuple(counts[topic] for topic in topics)
