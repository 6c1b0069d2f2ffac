"""A client's own test part: the examples that it keeps apart, never trains on, and scores adapters on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fccl.data.examples import Example
from fccl.data.shards import ClientShard
from fccl.data.split import group_key
from fccl.specs import named_seed


def keep_apart(shard: ClientShard, share: float) -> ClientShard:
    """The shard with about this share of its examples kept apart, by instruction.

    A hash of the instruction decides, the same at every client. So no client trains on an instruction that another one
    keeps apart, and a new row moves no other. A client that would have nothing left to train on keeps all.
    """
    sft, test_sft = _parted(shard.sft, share)
    va, test_va = _parted(shard.va, share)
    return replace(shard, sft=sft, va=va, test_sft=test_sft, test_va=test_va)


def _parted(examples: Sequence[Example], share: float) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    apart = [named_seed(0, "own test", group_key(example.instruction)) < share * 2**63 for example in examples]
    if all(apart):
        return tuple(examples), ()
    parts: tuple[list[Example], list[Example]] = [], []
    for example, is_test in zip(examples, apart, strict=True):
        parts[is_test].append(example)
    return tuple(parts[0]), tuple(parts[1])
