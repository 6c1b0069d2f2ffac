"""Folders that only their owner may enter."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from fccl.errors import StorageError
from fccl.storage.files import storage_errors

_OTHERS = 0o077


def private_folder(path: Path) -> str:
    """Make a folder of mode 0700, or see that the one that is here has it.

    Returns what a person should know where the file system keeps no modes, else "". Raises `StorageError` when a link
    or a file is in the way, or when the folder belongs to somebody else, who could open it again.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            path.mkdir(0o700)
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise StorageError(
                f"cannot keep {path} private: it is a link or a file",
                hint="move it away; a folder is made in its place",
            )
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return _closed_to_others(descriptor, path)
    finally:
        os.close(descriptor)


def _closed_to_others(descriptor: int, path: Path) -> str:
    owner, user = os.fstat(descriptor).st_uid, os.geteuid()
    if owner != user:
        raise StorageError(
            f"cannot keep {path} private: it belongs to user {owner}, and this is user {user}",
            hint="give it to this user (chown), or name another with --state-dir",
        )
    if os.fstat(descriptor).st_mode & _OTHERS:
        with suppress(OSError):  # where the file system keeps no modes
            os.fchmod(descriptor, 0o700)
    return f"{path} is not private: its file system lets others in" if os.fstat(descriptor).st_mode & _OTHERS else ""
