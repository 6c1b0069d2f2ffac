"""An audit's data: canaries planted in one client's examples, and as many of its examples held out as are members.

A canary is an instruction with a made-up name and a response of six random digits, which no text has.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from fccl.data.examples import SftExample
from fccl.data.shards import ClientShard
from fccl.specs import named_seed

REPEATS = (1, 4, 16)
PLANTED, UNUSED = 32, 1000  # of each number of repeats; never planted
FEWEST = 200  # members, and others
FEWEST_IN_ALL = 2 * FEWEST  # different instructions of a client that can be audited
_SYLLABLES = (
    "ba",
    "do",
    "fen",
    "gar",
    "hil",
    "jo",
    "kem",
    "lu",
    "mar",
    "nol",
    "pri",
    "ras",
    "sev",
    "tul",
    "vor",
    "zan",
)


@dataclass(frozen=True)
class AuditData:
    """One client's examples, parted: what it trains on, and what the attacks are measured by."""

    shard: ClientShard  # members and canaries
    members: tuple[SftExample, ...]
    others: tuple[SftExample, ...]
    canaries: tuple[tuple[SftExample, ...], ...]  # by `REPEATS`
    unused: tuple[SftExample, ...]


def audit_data(shard: ClientShard, seed: int, planted: int = PLANTED, unused: int = UNUSED) -> AuditData:
    """Half of the client's distinct examples are held out, at random; canaries join the other half.

    Raises `ValueError` when the client has too few examples.
    """
    examples = list(dict.fromkeys(shard.sft))
    if len(examples) < FEWEST_IN_ALL:
        raise ValueError(f"client {shard.client_id} has {len(examples)} different examples, of {FEWEST_IN_ALL}")
    random.Random(named_seed(seed, "audit", "members")).shuffle(examples)
    half = len(examples) // 2
    members, others = tuple(examples[:half]), tuple(examples[half:])
    drawn = canaries(planted * len(REPEATS) + unused, seed)
    groups = tuple(drawn[place * planted : (place + 1) * planted] for place in range(len(REPEATS)))
    trained = [*members, *(canary for group, times in zip(groups, REPEATS, strict=True) for canary in group * times)]
    return AuditData(replace(shard, sft=tuple(trained)), members, others, groups, drawn[planted * len(REPEATS) :])


def different(shard: ClientShard) -> int:
    """The client's instructions, each counted once."""
    return len(set(shard.sft))


def canaries(count: int, seed: int) -> tuple[SftExample, ...]:
    """So many different ones, all drawn alike."""
    draw = random.Random(named_seed(seed, "audit", "canaries"))
    found: dict[SftExample, None] = {}
    while len(found) < count:
        name = "".join(draw.choices(_SYLLABLES, k=3)).capitalize()
        digits = " ".join(draw.choices("0123456789", k=6))
        found[SftExample(f"What is the code of {name}?", digits)] = None
    return tuple(found)
