"""Locks that end with the process that holds them: one run to a folder, one process to a client, one that makes what
others need too.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from fccl.errors import FederationError, StorageError
from fccl.storage.files import storage_errors
from fccl.storage.flock import lock, wait_for_lock

Made = TypeVar("Made")


@contextmanager
def exclusive(path: Path, what: str, needed: bool = True) -> Iterator[None]:
    """Hold a lock (flock) on a file while the block runs; the kernel lets it go when the process dies, however it dies.

    Raises `FederationError` when another process holds it, `StorageError` when the file system has no locks; unless it
    is not `needed`: then the block runs without.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with storage_errors(path, "lock"):
            try:
                lock(descriptor)
            except BlockingIOError:
                holder = os.read(descriptor, 200).decode("utf-8", "replace").strip() or "it has just begun"
                raise FederationError(
                    f"{what} is at work on {path.parent} already ({holder})", hint="end that one first"
                ) from None
            except OSError:
                if needed:
                    raise
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(descriptor)


@contextmanager
def in_use(path: Path, what: str) -> Iterator[None]:
    """Hold a shared lock while the block runs: any number of processes can, but then none has it alone.

    The block runs without a lock where the file system has none, or where the lock file can be neither made nor read.
    So it is in a read-only folder, and in a container that sees two files of it. Raises `FederationError` when a
    process has it alone.
    """
    descriptor = _readable(path)
    if descriptor is None:
        yield
        return
    try:
        try:
            lock(descriptor, shared=True)
        except BlockingIOError:
            raise FederationError(
                f"{what} is being prepared by another command", hint="start this one again when that has ended"
            ) from None
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """Hold a lock that others share (`in_use`) alone. Raises `FederationError` when anybody uses what it stands for;
    none is waited for.

    When the block fails, a lock file that was made for it is gone again, and so is a folder.
    """
    with _folder_for(path), ExitStack() as held:
        with storage_errors(path.parent):
            made = not os.path.lexists(path)
            file = held.enter_context(open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)))
        try:
            lock(file)
        except BlockingIOError:
            hint = "use another folder (--data-dir), or start this again when that has ended"
            raise FederationError(f"{what} is in use by another command, so it stays as it is", hint=hint) from None
        except OSError:
            pass
        try:
            yield
        except BaseException:
            if made:
                with suppress(OSError):
                    os.unlink(path)
            raise


@contextmanager
def _folder_for(path: Path) -> Iterator[None]:
    """Make the folder of a file for the block; when the block fails and nothing else is in it, it is gone again.

    Raises `StorageError`.
    """
    folder = path.parent
    made = not folder.exists()
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if made:
            with suppress(OSError):
                folder.rmdir()
        raise


def _readable(path: Path) -> int | None:
    """A descriptor of a lock file, made if need be; None where that cannot be. A folder is not made for it."""
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
        with suppress(OSError):
            return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    return None


@contextmanager
def in_sight(folder: Path) -> Iterator[Callable[[], None]]:
    """A check that raises `StorageError` once the folder is gone, or another has its name.

    Held open, so that its number stays its own.
    """
    with storage_errors(folder, "read"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def check() -> None:
        try:
            same = os.path.samestat(os.fstat(descriptor), os.stat(folder))
        except OSError as error:
            same = error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
        if not same:
            raise StorageError(
                f"{folder} was removed or replaced while this process was at work in it",
                hint="start it again; LOG_DIR has every round",
            )

    try:
        yield check
    finally:
        os.close(descriptor)


def made_once(path: Path, find: Callable[[], Made | None], make: Callable[[], Made]) -> Made:
    """The value that `find` finds, else the one that `make` makes and keeps in `path`: one process makes it, the others
    wait and find it.
    """
    found = find()
    if found is None:
        with one_at_a_time(path):
            found = find()
            if found is None:
                found = make()
    return found


@contextmanager
def one_at_a_time(path: Path, needed: bool = True) -> Iterator[None]:
    """Wait until no other process is in such a block for the same file, then run the block, which makes it or finds it
    made.

    The lock file beside it is gone afterwards; when the process dies, however it dies, the kernel lets go of it. Where
    the file system has no locks nobody waits. Raises `StorageError` when there can be no lock file; unless it is not
    `needed`: then the block runs without.
    """
    lock = path.with_name(f".{path.name}.lock")
    with ExitStack() as held:
        with storage_errors(lock, "lock"):
            try:
                held.enter_context(_folder_for(lock))
                while not _locked(held.enter_context(open(lock, "ab")), lock):
                    pass
            except (OSError, StorageError) as error:
                if needed or _errno(error) not in (errno.EROFS, errno.EACCES, errno.EPERM):
                    raise
        try:
            yield
        finally:
            with suppress(OSError):
                os.unlink(lock)  # while it is held, so nobody's but this one


def _errno(error: OSError | StorageError) -> int | None:
    cause = error if isinstance(error, OSError) else error.__cause__
    return cause.errno if isinstance(cause, OSError) else None


def _locked(file: BinaryIO, path: Path) -> bool:
    """Wait for a file's lock. False when the file was taken away meanwhile: then another file has its name, or none."""
    with suppress(OSError):
        wait_for_lock(file)
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False


def sweep_locks(folder: Path) -> None:
    """Remove the lock files of `one_at_a_time` that killed processes have left in a folder."""
    with suppress(OSError):
        for path in folder.glob(".*.lock"):
            with suppress(OSError), open(path, "ab") as file:
                lock(file)
                if os.path.samestat(os.fstat(file.fileno()), os.lstat(path)):
                    os.unlink(path)
