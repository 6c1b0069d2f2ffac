"""Declarations of a client with trainers: its numbers of examples are the lengths of their datasets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from transformers import Trainer

from fccl.data.shards import ClientShard
from fccl.messages import Declaration, DeclareTask, StatusListener
from fccl.specs import PHASES, Phase


@dataclass(frozen=True)
class TrainerDeclarer:
    """Counts the examples of each trainer; none of a phase without one, in which the client is then not asked.

    Whether the server's splits have some of them is not checked: a trainer's rows have no form of their own.
    """

    trainers: Mapping[Phase, Trainer]
    asked: ClassVar[type[DeclareTask]] = DeclareTask

    def answer(self, request: DeclareTask, shard: ClientShard, on_status: StatusListener) -> Declaration:
        """One client's declaration."""
        counts = {phase: len(self.trainers[phase].train_dataset) if phase in self.trainers else 0 for phase in PHASES}
        return Declaration(client_id=shard.client_id, **counts)
