"""Updates as they arrived: the hash and the length of their files, in whatever form they are held."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from fccl.adapters.adapter import Adapter
from fccl.adapters.source import AdapterSource
from fccl.adapters.stored import AdapterReader, StoredAdapter
from fccl.messages import ClientUpdate, FitTask
from fccl.records.run import ArrivedUpdate
from fccl.records.sent import SentBytes


def arrived(update: ClientUpdate) -> ArrivedUpdate:
    """The hashes of an update's files, as the round's record has them: the same over every transport."""
    control = "" if update.control is None else file_sha256(update.control)
    return ArrivedUpdate(client_id=update.client_id, sha256=file_sha256(update.adapter), control_sha256=control)


def sent(task: FitTask, updates: Sequence[ClientUpdate], aggregate: Adapter) -> SentBytes:
    """The bytes of adapters that a round took on its way. `aggregate` is what its updates were made into."""
    whole = file_length(task.adapter)
    return SentBytes(
        codec=task.train.codec.name,
        up=sum(map(sent_length, updates)),
        down=whole if task.coded is None else len(task.coded),
        whole=whole,
        aggregate_sha256="" if task.train.codec.is_whole else aggregate.sha256,
    )


def sent_length(update: ClientUpdate) -> int:
    """The number of bytes that an update's adapters had on their way."""
    control = 0 if update.control is None else file_length(update.control)
    return control + (file_length(update.adapter) if update.sent is None else update.sent)


def file_sha256(adapter: AdapterSource) -> str:
    """The SHA-256 of the file that an adapter is in, or of the one that `save` would write."""
    if isinstance(adapter, StoredAdapter):
        return adapter.file_sha256
    return hashlib.sha256(adapter.load().to_bytes()).hexdigest()


def file_length(adapter: AdapterSource) -> int:
    """The number of bytes of that file. Raises `StorageError` when it is gone."""
    return adapter.length if isinstance(adapter, StoredAdapter) else AdapterReader(adapter.form).length
