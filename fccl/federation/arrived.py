"""Updates as they arrived: the hash and the length of their files, in whatever form they are held."""

from __future__ import annotations

import hashlib

from fccl.adapters.source import AdapterSource
from fccl.adapters.stored import AdapterReader, StoredAdapter
from fccl.messages import ClientUpdate
from fccl.records.run import ArrivedUpdate


def arrived(update: ClientUpdate) -> ArrivedUpdate:
    """The hashes of an update's files, as the round's record has them: the same over every transport."""
    control = "" if update.control is None else file_sha256(update.control)
    return ArrivedUpdate(client_id=update.client_id, sha256=file_sha256(update.adapter), control_sha256=control)


def file_sha256(adapter: AdapterSource) -> str:
    """The SHA-256 of the file that an adapter is in, or of the one that `save` would write."""
    if isinstance(adapter, StoredAdapter):
        return adapter.file_sha256
    return hashlib.sha256(adapter.load().to_bytes()).hexdigest()


def file_length(adapter: AdapterSource) -> int:
    """The number of bytes of that file. Raises `StorageError` when it is gone."""
    return adapter.length if isinstance(adapter, StoredAdapter) else AdapterReader(adapter.form).length
