"""Reading files that somebody else wrote, believing nothing: bounded, no links followed, nothing run."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from fccl.display.plain_text import printable
from fccl.errors import NotAFile, StorageError, UpdateRejected
from fccl.specs.values import Value
from fccl.storage.files import storage_errors

_NOT_READABLE = {  # what the writer of a file is to blame for; anything else is the reader's own disk
    errno.ENOENT: "is missing",
    errno.ESTALE: "is missing",
    errno.ELOOP: "is a symbolic link",
    errno.EACCES: "may not be read",
    errno.EPERM: "may not be read",
    errno.ENXIO: "is not a regular file",
    errno.ENODEV: "is not a regular file",
    errno.EISDIR: "is a folder",
    errno.ENOTDIR: "is missing",
    errno.ENAMETOOLONG: "has too long a name",
}
_FORBIDDEN = (errno.EACCES, errno.EPERM)
_SHOWN_PROBLEMS = 2
Parsed = TypeVar("Parsed", bound=Value)


class NotJson(ValueError):
    """Something is no JSON value. The message goes on where a sentence names it, and says why."""


class NamedTwice(NotJson):
    """JSON, but one object gives a name twice: each reader may take another of the two."""


def json_value(content: str | bytes | bytearray) -> Any:
    """A JSON value that can be read in one way only: no name is given twice. Raises `NotJson`."""
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        return json.loads(text, object_pairs_hook=object_of)
    except UnicodeDecodeError as error:
        raise NotJson(f"is not UTF-8 (byte {error.start + 1})") from error
    except RecursionError as error:
        raise NotJson("is nested too deeply") from error
    except NotJson:
        raise
    except ValueError as error:  # also a number of thousands of digits
        raise NotJson(f"is not JSON: {getattr(error, 'msg', error)}") from error


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, from the names and values that its text gives. Raises `NamedTwice`."""
    found = dict(pairs)
    if len(found) < len(pairs):
        double, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise NamedTwice(f"names {printable(double, 100)!r} twice")
    return found


def read_bounded(path: Path, limit: int, length: int | None = None) -> bytearray:
    """The content of a regular file of at most `limit` bytes; a link is not followed, a pipe is not waited for.

    With `length` it must have exactly so many. No memory is taken before the file's length is found right. Raises
    `NotAFile` when it is anything else, `UpdateRejected` when it may not be read or has another length, `StorageError`
    when the disk fails.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):  # a device may do something when it is opened
            raise NotAFile(f"{path.name} {_what_it_is(path)}")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return _read_regular(descriptor, path.name, limit, length)
        finally:
            os.close(descriptor)
    except OSError as error:
        reason = _NOT_READABLE.get(error.errno or 0)
        if reason is None:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
        kind = UpdateRejected if error.errno in _FORBIDDEN else NotAFile
        raise kind(f"{path.name} {reason}") from error


def identity(path: Path) -> tuple[int, int, int] | None:
    """The identity of a file, which changes when it is written anew: its inode, time and length.

    None when no regular file is there; a link to one is none.
    """
    found = _found(path)
    return (
        (found.st_ino, found.st_mtime_ns, found.st_size) if found is not None and stat.S_ISREG(found.st_mode) else None
    )


def is_there(path: Path) -> bool:
    """Whether anything has this name, be it a link that leads nowhere."""
    return _found(path) is not None


def is_in_the_way(path: Path) -> bool:
    """Whether something has this name that is no regular file."""
    found = _found(path)
    return found is not None and not stat.S_ISREG(found.st_mode)


def is_own_folder(path: Path) -> bool:
    """Whether a folder has this name; a link to one is none."""
    found = _found(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def is_no_folder(path: Path) -> bool:
    """Whether something has this name that is no folder. One look: a folder that is made meanwhile is none of it."""
    found = _found(path)
    return found is not None and not stat.S_ISDIR(found.st_mode)


def _found(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _what_it_is(path: Path) -> str:
    mode = os.lstat(path).st_mode
    return (
        "is a symbolic link" if stat.S_ISLNK(mode) else "is a folder" if stat.S_ISDIR(mode) else "is not a regular file"
    )


def _read_regular(descriptor: int, name: str, limit: int, length: int | None) -> bytearray:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise NotAFile(f"{name} is not a regular file")
    if found.st_size > limit:
        raise UpdateRejected(f"{name} has {found.st_size:,} bytes, at most {limit:,} are possible")
    if length not in (None, found.st_size):
        raise UpdateRejected(f"{name} has {found.st_size:,} bytes, {length:,} were said to be there")
    content = bytearray(found.st_size)
    view, filled = memoryview(content), 0
    while filled < len(content) and (count := os.readv(descriptor, [view[filled:]])):
        filled += count
    view.release()
    if filled < len(content) or os.read(descriptor, 1):
        raise UpdateRejected(f"{name} changed while it was read")
    return content


def parse(content: bytes | bytearray, kind: type[Parsed], name: str) -> Parsed:
    """A JSON file as a value, strictly: "1" is no number, nor is true, and no name is given twice.

    Raises `UpdateRejected` with the first problems.
    """
    try:
        json_value(content)
        return kind.model_validate_json(bytes(content), strict=True)
    except NotJson as error:
        raise UpdateRejected(f"{name} {error}") from error
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)[:_SHOWN_PROBLEMS]
        problems = [f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}" for problem in found]
        raise UpdateRejected(printable(f"{name}: {'; '.join(problems)}")) from error


Kind = TypeVar("Kind", bound=Value)


def parsed(content: bytes, kind: type[Kind], strict: bool = True) -> Kind | None:
    """JSON as a value; None when it is not one."""
    try:
        json_value(content)
        return kind.model_validate_json(content, strict=strict)
    except (NotJson, ValidationError):
        return None


def read_small(path: Path | str, limit: int, follow: bool = True, folder: int | None = None) -> bytes | None:
    """The content of a regular file of at most `limit` bytes, else None.

    `folder` is an open folder that the path begins in.
    """
    return read_whole(path, limit, follow, folder)[0]


def read_whole(
    path: Path | str, limit: int, follow: bool, folder: int | None = None
) -> tuple[bytes | None, os.stat_result | None]:
    """The content, and what the file was when it was read."""
    try:
        with opened(path, follow, folder) as file:
            content, found = os.pread(file, limit + 1, 0), os.fstat(file)
    except OSError:
        return None, None
    return (content, found) if len(content) <= limit else (None, None)


@contextmanager
def opened(path: Path | str, follow: bool = True, folder: int | None = None) -> Iterator[int]:
    """A regular file, open to be read.

    Raises `OSError`; of the kind `FileNotFoundError` when something else has its name.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    file = os.open(path, flags, dir_fd=folder)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a regular file", str(path))
        yield file
    finally:
        os.close(file)


Record = TypeVar("Record", bound=Value)


def read_rows(path: Path) -> Iterator[dict[str, object]]:
    """The JSON objects of a `.jsonl` file, in order.

    A line that was cut, or is none, is passed over; no file is no rows.
    """
    if not path.is_file():
        return
    with storage_errors(path, "read"), open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = json_value(line)
            except NotJson:
                continue
            if isinstance(row, dict):
                yield row


def read_records(
    path: Path, kind: type[Record], keep: Callable[[dict[str, object]], bool] = lambda _: True
) -> list[Record]:
    """The lines of a `.jsonl` file that are valid records of `kind`."""
    records = []
    for row in read_rows(path):
        if keep(row):
            try:
                records.append(kind.model_validate_json(json.dumps(row)))
            except ValidationError:
                continue
    return records


def read_value(path: Path, kind: type[Record]) -> Record | None:
    """A small JSON file as a value; None when it is not there or is not one."""
    if not path.is_file():
        return None
    with storage_errors(path, "read"):
        content = path.read_bytes()
    try:
        json_value(content)
        return kind.model_validate_json(content)
    except (NotJson, ValidationError):
        return None
