"""Reading files that somebody else wrote, believing nothing: bounded, no links followed, nothing run."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from fccl.errors import StorageError, UpdateRejected
from fccl.specs import Value

_NOT_READABLE = {  # what the writer of a file is to blame for; anything else is the reader's own disk
    errno.ENOENT: "is missing",
    errno.ELOOP: "is a symbolic link",
    errno.EACCES: "may not be read",
    errno.EPERM: "may not be read",
    errno.ENXIO: "is not a regular file",
    errno.ENODEV: "is not a regular file",
    errno.EISDIR: "is a folder",
    errno.ENOTDIR: "is missing",
    errno.ENAMETOOLONG: "has too long a name",
}
_SHOWN_PROBLEMS = 2
Parsed = TypeVar("Parsed", bound=Value)


def read_bounded(path: Path, limit: int) -> bytearray:
    """The content of a regular file of at most `limit` bytes; a link is not followed, a pipe is not waited for.

    Raises `UpdateRejected` when it is anything else, `StorageError` when the disk fails.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            return _read_regular(file.fileno(), path.name, limit)
    except OSError as error:
        reason = _NOT_READABLE.get(error.errno or 0)
        if reason is None:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
        raise UpdateRejected(f"{path.name} {reason}") from error


def _read_regular(descriptor: int, name: str, limit: int) -> bytearray:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise UpdateRejected(f"{name} is not a regular file")
    if found.st_size > limit:
        raise UpdateRejected(f"{name} has {found.st_size:,} bytes, at most {limit:,} are possible")
    content = bytearray(found.st_size)
    view, filled = memoryview(content), 0
    while filled < len(content) and (count := os.readv(descriptor, [view[filled:]])):
        filled += count
    view.release()
    if filled < len(content) or os.read(descriptor, 1):
        raise UpdateRejected(f"{name} changed while it was read")
    return content


def parse(content: bytes | bytearray, kind: type[Parsed], name: str) -> Parsed:
    """A JSON file as a value, strictly: "1" is no number, nor is true. Raises `UpdateRejected` with the first problems."""
    try:
        return kind.model_validate_json(bytes(content), strict=True)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)[:_SHOWN_PROBLEMS]
        problems = [f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}" for problem in found]
        raise UpdateRejected(printable(f"{name}: {'; '.join(problems)}")) from error


def printable(text: str, limit: int = 500, keep: str = "") -> str:
    r"""Text from elsewhere, fit for a terminal and a log: one line, control characters shown as `\x1b`, not too long.

    White space becomes a space, but for the characters in `keep`.
    """
    return "".join(character if character in keep else _visible(character) for character in text[: limit * 2])[:limit]


def _visible(character: str) -> str:
    if character.isspace():
        return " "
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
