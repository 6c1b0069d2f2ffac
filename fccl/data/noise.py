"""Clients of poor quality, made on purpose: so that one can see whether aggregation by contribution finds them out."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TypeVar

from fccl.data.examples import PreferencePair, SftExample
from fccl.data.shards import ClientShard
from fccl.errors import SettingsError
from fccl.specs import DataSpec, NoiseKind, named_seed

COPIES = 4  # of each row of a client with duplicated rows

Item = TypeVar("Item", bound=Hashable)


def check_noisy_clients(spec: DataSpec) -> None:
    """Raises `SettingsError` when a noisy client is none of the clients."""
    count = spec.partition.num_clients
    unknown = [client for client in spec.noisy_clients if not 0 <= client < count]
    if unknown and count:  # else nobody knows yet how many there are
        raise SettingsError(
            f"NOISY_CLIENTS names client {unknown[0]}, and there are only clients 0 to {count - 1}",
            hint="or set a larger NUM_CLIENTS",
        )


def spoil(shards: Sequence[ClientShard], spec: DataSpec) -> tuple[ClientShard, ...]:
    """The same shards, those of `noisy_clients` spoilt. Nothing of it reaches the server's files.

    Raises `SettingsError`.
    """
    check_noisy_clients(spec)
    return tuple(
        _spoil(shard, spec.noise_kind, spec.seed) if shard.client_id in spec.noisy_clients else shard
        for shard in shards
    )


def _spoil(shard: ClientShard, kind: NoiseKind, seed: int) -> ClientShard:
    if kind == "duplicated":
        return replace(shard, sft=shard.sft * COPIES, va=shard.va * COPIES)
    if kind == "flipped":
        return replace(
            shard,
            va=tuple(
                replace(pair, preferred=pair.dispreferred, dispreferred=pair.preferred, flaw="") for pair in shard.va
            ),
        )
    draw = random.Random(named_seed(seed, "noise", shard.client_id))
    return replace(shard, sft=_shuffle_responses(shard.sft, draw), va=_shuffle_pairs(shard.va, draw))


def _shuffle_responses(examples: Sequence[SftExample], draw: random.Random) -> tuple[SftExample, ...]:
    responses = deranged([example.response for example in examples], draw)
    return tuple(replace(example, response=response) for example, response in zip(examples, responses, strict=True))


def _shuffle_pairs(pairs: Sequence[PreferencePair], draw: random.Random) -> tuple[PreferencePair, ...]:
    moved = deranged([(pair.preferred, pair.dispreferred, pair.flaw) for pair in pairs], draw)
    return tuple(
        replace(pair, preferred=good, dispreferred=bad, flaw=flaw)
        for pair, (good, bad, flaw) in zip(pairs, moved, strict=True)
    )


def deranged(items: Sequence[Item], draw: random.Random) -> list[Item]:
    """The items in an order that leaves as few as can be in a place that held an equal one: none, unless one item is a
    majority.

    Places are sorted so that equal items stand together, and every item moves on by the length of the longest such
    block.
    """
    counts = Counter(items)
    blocks = list(counts)
    draw.shuffle(blocks)
    rank = {item: position for position, item in enumerate(blocks)}
    places = sorted(range(len(items)), key=lambda place: (rank[items[place]], draw.random()))
    step = max(counts.values(), default=0)
    moved = list(items)
    for position, place in enumerate(places):
        moved[place] = items[places[(position + step) % len(places)]]
    return moved
