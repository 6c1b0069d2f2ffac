"""One orchestrator to an exchange directory, one process to a client: locks that end with the process that holds them."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fccl.errors import FederationError
from fccl.files import storage_errors


@contextmanager
def exclusive(path: Path, what: str, needed: bool = True) -> Iterator[None]:
    """Hold a lock (flock) on a file while the block runs; the kernel lets it go when the process dies, however it dies.

    Raises `FederationError` when another process holds it, `StorageError` when the file system has no locks; unless it is not `needed`: then the
    block runs without.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with storage_errors(path, "lock"):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 200).decode("utf-8", "replace").strip() or "it has just begun"
                raise FederationError(f"{what} is at work on {path.parent} already ({holder})", hint="end that one first") from None
            except OSError:
                if needed:
                    raise
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(descriptor)
