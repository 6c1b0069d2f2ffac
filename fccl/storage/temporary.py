"""Half-written files: their names, and their removal when their process dies.

A file or folder is made under a temporary name beside its place, and locked (flock) while its process lives. So whoever
finds one that nobody locks may remove it. Where the file system has no locks, or other programs write such names, their
age decides.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fccl.storage.flock import lock

OLD_S = 600.0  # a temporary file that is older and that nobody can be asked about was left by a process that died
_OURS = re.compile(r"[.].*[.][0-9a-f]{16}[.]tmp", re.DOTALL)
_ROOM = 255 - len("..0123456789abcdef.tmp")  # bytes of a name that are left for the name of what is made


def is_temporary(name: str) -> bool:
    """Whether a file name says that this is half-written, by this program or another."""
    return name.startswith(".") and name.endswith(".tmp")


def make_file(path: Path, mode: int = 0o666) -> tuple[int, str]:
    """A new empty file beside `path`, for `path`: its descriptor, for writing, and its name.

    Its mode is `mode` less the umask.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return _make(path, lambda name: None, lambda name: os.open(name, flags, mode))


def make_folder(path: Path) -> tuple[int, str]:
    """A new empty folder beside `path`, for `path`: a descriptor, which keeps it locked, and its name."""
    return _make(path, os.mkdir, lambda name: os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def sweep(folder: Path, mine: Callable[[str], bool] = lambda name: True) -> None:
    """Remove what lies half-written in a folder and nobody is writing any more. `mine` picks by name."""
    with suppress(OSError):
        for name in os.listdir(folder):
            if is_temporary(name) and mine(name):
                _remove_if_left(folder / name)


def sweep_for(path: Path) -> None:
    """Remove what killed processes left half-written of this one file or folder."""
    sweep(path.parent, lambda name: name.startswith(f".{path.name}."))


def is_old(path: Path) -> bool:
    """Whether a temporary file is so old that no living process can be writing it. What is gone is not."""
    with suppress(OSError):
        return time.time() - path.lstat().st_mtime > OLD_S
    return False


def _make(path: Path, prepare: Callable[[str], None], open_it: Callable[[str], int]) -> tuple[int, str]:
    """Try names until one is made and locked: somebody who sweeps may take it away before it is."""
    kept = os.fsdecode(os.fsencode(path.name)[:_ROOM])
    while True:
        name = str(path.with_name(f".{kept}.{os.urandom(8).hex()}.tmp"))
        prepare(name)
        try:
            descriptor = open_it(name)
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise
            continue
        if _claimed(descriptor, name):
            return descriptor, name
        os.close(descriptor)


def _claimed(descriptor: int, name: str) -> bool:
    """Lock what has just been made. False when somebody who sweeps was quicker."""
    try:
        lock(descriptor, shared=True)
    except BlockingIOError:
        return False
    except OSError:  # no locks here: nobody sweeps what is not old
        return True
    return os.path.lexists(name)


def _remove_if_left(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return _remove(path) if is_old(path) else None
    try:
        if _nobody_writes(descriptor, path):
            _remove(path)
    finally:
        os.close(descriptor)


def _nobody_writes(descriptor: int, path: Path) -> bool:
    """Whether its process is gone.

    Then it stays locked until the descriptor is closed, so that nobody begins anew under its name.
    """
    if not _OURS.fullmatch(path.name):
        return is_old(path)
    try:
        lock(descriptor)
    except BlockingIOError:
        return False
    except OSError:
        return is_old(path)
    return True


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
