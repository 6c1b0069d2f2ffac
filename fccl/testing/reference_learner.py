"""The toy learner that also reads the reference adapter of VA rounds."""

from __future__ import annotations

import dataclasses

from fccl.adapters.adapter import Adapter
from fccl.data.shards import ClientShard
from fccl.messages import ClientUpdate, FitTask, StatusListener
from fccl.testing.toy import ToyLearner


class LearnerWithReference(ToyLearner):
    """In VA rounds it also moves towards the reference adapter, so a wrong or missing one is seen in the bytes."""

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        """The toy update, moved by a quarter of the reference."""
        update = super().fit(task, shard, on_status)
        if task.reference is None:
            return update
        tensors, reference = update.adapter.load().tensors, task.reference.tensors
        moved = {name: tensor + 0.25 * reference[name] for name, tensor in tensors.items()}
        return dataclasses.replace(update, adapter=Adapter(moved))
