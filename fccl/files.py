"""Writing files so that a reader sees all or nothing, and one clear error when the disk refuses."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fccl.errors import StorageError

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.ENOENT: "it does not exist",
}

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_ELSEWHERE = "another folder can be named with --data-dir, --log-dir, --exchange-dir, --state-dir or --out; what was complete before is untouched"
_FULL = f"free some space; {_ELSEWHERE}"


@contextmanager
def storage_errors(path: Path, action: str = "write") -> Iterator[None]:
    """Turn an OSError inside the block into one `StorageError` that names the file and the reason."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(f"cannot {action} {path}: {reason}", hint=_FULL if error.errno in _NO_SPACE else _ELSEWHERE) from error


def write_bytes(path: Path, content: bytes | bytearray) -> None:
    """Write a whole file under a temporary name, flush it to the disk, rename it, flush the folder.

    Whatever happens in between, `path` holds the old content or the new one. Raises `StorageError`.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            os.fchmod(descriptor, 0o644)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
        sync_folder(path.parent)


def write_text(path: Path, content: str) -> None:
    """`write_bytes` for text, UTF-8."""
    write_bytes(path, content.encode("utf-8"))


def append_line(path: Path, line: str) -> None:
    """Append one whole line in a single write. Raises `StorageError`.

    When the last line was cut (the disk was full, the process was killed), the new line starts on a line of its own.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(line.encode("utf-8") + b"\n")
            file.flush()
            os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no fsync of folders
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(new: Path, folder: Path) -> None:
    """Put the folder `new` in the place of `folder`; files that only the old one had are gone. Raises `StorageError`."""
    old = folder.with_name(f".{folder.name}.old")
    with storage_errors(folder):
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
        sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with storage_errors(path, "read"), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
