"""Locks that end with the process that holds them: one run to a folder, one process to a client, one that makes what others need too."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from fccl.errors import FederationError
from fccl.files import storage_errors

Made = TypeVar("Made")


@contextmanager
def exclusive(path: Path, what: str, needed: bool = True) -> Iterator[None]:
    """Hold a lock (flock) on a file while the block runs; the kernel lets it go when the process dies, however it dies.

    Raises `FederationError` when another process holds it, `StorageError` when the file system has no locks; unless it is not `needed`: then the
    block runs without.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
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


def made_once(path: Path, find: Callable[[], Made | None], make: Callable[[], Made]) -> Made:
    """What `find` finds, else what `make` makes and keeps in `path`: one process makes it, the others wait and find it."""
    found = find()
    if found is None:
        with one_at_a_time(path):
            found = find()
            if found is None:
                found = make()
    return found


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for the same file, then run the block, which makes it or finds it made.

    The lock file beside it is gone afterwards; when the process dies, however it dies, the kernel lets go of it. Where the file system has no
    locks nobody waits. Raises `StorageError`.
    """
    lock = path.with_name(f".{path.name}.lock")
    with ExitStack() as held:
        with storage_errors(lock, "lock"):
            path.parent.mkdir(parents=True, exist_ok=True)
            while not _locked(held.enter_context(open(lock, "ab")), lock):
                pass
        try:
            yield
        finally:
            with suppress(OSError):
                os.unlink(lock)  # while it is held, so nobody's but this one


def _locked(file: BinaryIO, path: Path) -> bool:
    """Wait for a file's lock. False when the file was taken away meanwhile: then another file has its name, or none."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX)
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False
