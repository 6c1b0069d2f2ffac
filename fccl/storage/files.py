"""Writing files so that a reader sees all or nothing, and one clear error when the disk refuses."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fccl.errors import StorageError
from fccl.storage import temporary

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
_NO_SUCH_CALL = (
    errno.EINVAL,
    errno.ENOSYS,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.EPERM,
)  # of a file system that has no such call
_ELSEWHERE = (
    "another folder can be named with --data-dir, --log-dir, --exchange-dir, --state-dir or --out; what was "
    "complete "
    "before is untouched"
)
_FULL = f"free some space; {_ELSEWHERE}"


@contextmanager
def storage_errors(path: Path, action: str = "write") -> Iterator[None]:
    """Turn an OSError inside the block into one `StorageError` that names the file and the reason."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise StorageError(
            f"cannot {action} {path}: {reason}", hint=_FULL if error.errno in _NO_SPACE else _ELSEWHERE
        ) from error


def write_bytes(path: Path, content: bytes | bytearray, mode: int = 0o666) -> None:
    """Write a whole file under a temporary name, flush it to the disk, rename it, flush the folder. Its mode is `mode`
    less the umask.

    Whatever happens in between, `path` holds the old content or the new one. Raises `StorageError`.
    """
    with storage_errors(path):
        for last in (False, False, True):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                _write_beside(path, content, mode)
                break
            except FileNotFoundError:  # where files have no locks, whoever clears away may have taken it for left
                if last:
                    raise
        sync_folder(path.parent)


def _write_beside(path: Path, content: bytes | bytearray, mode: int) -> None:
    descriptor, name = temporary.make_file(path, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            flush(file.fileno())
            os.replace(name, path)  # while it is locked: once it is closed somebody may sweep it away
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def write_text(path: Path, content: str) -> None:
    """`write_bytes` for text, UTF-8."""
    write_bytes(path, content.encode("utf-8"))


def require_writable(path: Path) -> None:
    """Raises `StorageError` where a file could not be written; to be asked before the work whose result it takes."""
    with storage_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = temporary.make_file(path, 0o666)
        os.close(descriptor)
        os.unlink(name)


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
            flush(file.fileno())


def flush(descriptor: int) -> None:
    """Flush a file to the disk, where the file system can. Raises OSError when it could and has not."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise


def flush_file(path: Path) -> None:
    """Flush a file that is there already to the disk. Raises `StorageError`."""
    with storage_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            flush(descriptor)
        finally:
            os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the file system can: some let nobody open a folder, many have no
    fsync of it.
    """
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder under a temporary name beside `folder`, to be filled and moved in the block; what is not moved is gone
    afterwards.
    """
    with storage_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = temporary.make_folder(folder)
    try:
        yield Path(name)
    finally:
        try:
            shutil.rmtree(name, ignore_errors=True)
        finally:
            os.close(descriptor)


def give_usual_modes(folder: Path) -> None:
    """Give all files below a new folder the mode that the umask leaves: some libraries write for their owner alone.

    Where modes can be set.
    """
    with suppress(OSError):
        mode = folder.stat().st_mode & 0o666
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                path.chmod(mode)


def replace_folder(new: Path, folder: Path) -> None:
    """Put the folder `new` in the place of `folder`; files that only the old one had are gone. Raises `StorageError`.

    Killed in between, the old one is complete under a name that `recover_folder` knows.
    """
    recover_folder(folder)
    old = _set_aside(folder)
    with storage_errors(folder):
        if folder.exists():
            os.replace(folder, old)
        try:
            os.replace(new, folder)
        except OSError:
            if old.exists():
                os.replace(old, folder)
            raise
        sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)


def recover_folder(folder: Path) -> None:
    """Finish what a killed `replace_folder` has begun: the old folder comes back where no new one is, and goes where
    one is.
    """
    old = _set_aside(folder)
    with storage_errors(folder):
        if old.is_dir() and not os.path.lexists(folder):
            os.replace(old, folder)
    shutil.rmtree(old, ignore_errors=True)


def _set_aside(folder: Path) -> Path:
    """Where a folder waits while another takes its place. A name that no sweeping takes for half-written."""
    return folder.with_name(f".{folder.name}.old")


def read_whole(path: Path) -> bytearray:
    """The content of a regular file. Raises `StorageError`, also when it is another kind of file."""
    with (
        storage_errors(path, "read"),
        open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file,
    ):
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        content = bytearray(found.st_size)
        view, filled = memoryview(content), 0
        while filled < len(content) and (count := file.readinto(view[filled:])):
            filled += count
        view.release()
        del content[filled:]
        return content


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with storage_errors(path, "read"), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
