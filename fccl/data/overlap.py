"""Overlap of a client's data with the server's splits, by salted hashes: neither shows the other its texts."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from fccl.data.examples import PreferencePair, SftExample, read_examples
from fccl.data.shards import ClientShard
from fccl.data.split import SERVER_SPLITS, group_key
from fccl.paths import DataPaths
from fccl.specs import PHASES

_DIGITS = 16  # of 64 bits: two different instructions of a million share a mark once in ten million runs


def mark_of(instruction: str, salt: str) -> str:
    """The mark of an instruction, the same whatever its case and its white space."""
    return hashlib.sha256(f"{salt}\n{group_key(instruction)}".encode()).hexdigest()[:_DIGITS]


def marks_of(instructions: Iterable[str], salt: str) -> tuple[str, ...]:
    """The marks of these instructions, each once, sorted: their order says nothing."""
    return tuple(sorted({mark_of(instruction, salt) for instruction in instructions}))


def overlap(shard: ClientShard, marks: Collection[str], salt: str) -> int:
    """The number of a shard's distinct instructions that have one of these marks."""
    mine = marks_of((example.instruction for phase in PHASES for example in shard.of(phase)), salt)
    return len(set(mine) & set(marks))


def server_instructions(paths: DataPaths) -> tuple[str, ...]:
    """The instructions of the server's splits. Raises `DataError` when they are not there."""
    files = [(paths.server_split(split, phase), phase) for split in SERVER_SPLITS for phase in PHASES]
    return tuple(
        example.instruction
        for file, phase in files
        for example in (read_examples(file, SftExample) if phase == "sft" else read_examples(file, PreferencePair))
    )
