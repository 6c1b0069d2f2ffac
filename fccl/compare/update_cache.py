"""Client updates that were trained once: every method's first round starts from the same adapter, so its updates are
the same to the bit.

An update follows from the adapter it starts from, the reference, the client's examples, the training spec, the model
and the client's seed, and from nothing else. These are its key. Only rounds that start from `start` are kept: later
adapters differ from method to method.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fccl.adapters.adapter import load_adapter
from fccl.data.shards import ClientShard
from fccl.data.sources import digest_of
from fccl.errors import AdapterError, StorageError
from fccl.messages import ClientUpdate, FitTask, Learner, StatusListener
from fccl.paths import ADAPTER
from fccl.records.run import Contribution, TrainingReport
from fccl.specs import Value
from fccl.storage.files import write_text
from fccl.storage.locks import made_once
from fccl.storage.reading import read_value


class CachedUpdate(Value):
    """The record beside a cached adapter. Written last, it commits the update."""

    adapter_sha256: str
    contribution: Contribution
    report: TrainingReport


@dataclass(frozen=True)
class CachedLearner:
    """Trains what was not trained before from the adapter with hash `start`.

    `versions` are the libraries whose arithmetic the bits depend on.
    """

    learner: Learner
    folder: Path
    start: str
    model_sha256: str
    versions: Mapping[str, str]

    def fit(self, task: FitTask, shard: ClientShard, on_status: StatusListener) -> ClientUpdate:
        """The update, from the disk where it is there whole; another process that is training it is waited for. Raises
        what `learner` raises.

        SCAFFOLD's updates, which have a control variate, are not kept.
        """
        if task.adapter.sha256 != self.start or task.corrections is not None:
            return self.learner.fit(task, shard, on_status)
        key = self.key(task, shard)
        return made_once(
            self._adapter(key),
            lambda: self._read(key, task, shard.client_id),
            lambda: self._write(key, self.learner.fit(task, shard, on_status)),
        )

    def key(self, task: FitTask, shard: ClientShard) -> str:
        """A hash of all that the update follows from."""
        parts = {
            "versions": dict(self.versions),
            "model": task.model.model_dump(exclude_defaults=True),
            "model_sha256": self.model_sha256,
            "train": task.train.model_dump(exclude_defaults=True),
            "phase": task.phase,
            "adapter": task.adapter.sha256,
            "reference": task.reference.sha256 if task.reference else None,
            "examples": digest_of(shard.of(task.phase)),
            "seed": task.client_seed(shard.client_id),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]

    def _read(self, key: str, task: FitTask, client_id: int) -> ClientUpdate | None:
        kept = read_value(self.folder / f"{key}.json", CachedUpdate)
        if kept is None:
            return None
        try:
            adapter = load_adapter(self._adapter(key))
        except (AdapterError, StorageError):
            return None
        if adapter.sha256 != kept.adapter_sha256:
            return None
        return task.update(
            client_id,
            adapter=adapter,
            contribution=kept.contribution,
            report=kept.report,
        )

    def _write(self, key: str, update: ClientUpdate) -> ClientUpdate:
        adapter = update.adapter.load()
        adapter.save(self._adapter(key))
        kept = CachedUpdate(adapter_sha256=adapter.sha256, contribution=update.contribution, report=update.report)
        write_text(self.folder / f"{key}.json", kept.model_dump_json() + "\n")
        return update

    def _adapter(self, key: str) -> Path:
        return self.folder / f"{key}{ADAPTER}"
