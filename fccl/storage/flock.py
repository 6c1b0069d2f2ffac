"""Locks of the kernel on open files (flock), on every system that has them."""

from __future__ import annotations

from typing import IO, Any

from fccl.errors import StorageError

try:
    import fcntl
except ModuleNotFoundError as error:
    raise StorageError(
        "this system has no file locks of the kind that FCCL needs (fcntl): it runs on Linux and macOS",
        hint="on Windows use WSL 2 (`wsl --install`) or Docker",
    ) from error


def lock(file: int | IO[Any], shared: bool = False) -> None:
    """Lock an open file, or raise `OSError` when another process holds it."""
    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def wait_for_lock(file: int | IO[Any]) -> None:
    """Lock an open file as soon as no other process holds it. Raises `OSError` where files have no locks."""
    fcntl.flock(file, fcntl.LOCK_EX)
