"""Declarations at a client: answers requests of kind `declare` with the counts of its own shard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fccl.data.overlap import overlap
from fccl.data.shards import ClientShard
from fccl.messages import Declaration, DeclareTask, StatusListener


@dataclass(frozen=True)
class Declarer:
    """Counts the client's examples, and those of its instructions that the server's splits have too.

    A `bare` declaration says of each phase only whether there are examples at all, and nothing of overlap. Without
    `marks` it gives the counts, and nothing of overlap.
    """

    bare: bool = False
    marks: bool = True

    asked: ClassVar[type[DeclareTask]] = DeclareTask

    def answer(self, request: DeclareTask, shard: ClientShard, on_status: StatusListener) -> Declaration:
        """One client's declaration."""
        if self.bare:
            some = {"sft": min(1, len(shard.sft)), "va": min(1, len(shard.va))}
            return Declaration(client_id=shard.client_id, **some)
        found = overlap(shard, request.marks, request.run_id) if request.marks and self.marks else None
        return Declaration(client_id=shard.client_id, sft=len(shard.sft), va=len(shard.va), overlap=found)
