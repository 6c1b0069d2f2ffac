"""Sealing a finished run: the hash of every file that its result follows from, signed where the server has a key.

A seal finds a byte that was changed later, wherever it is. It does not stop somebody who changes a file and seals
again: against that there is the server's signature, or a copy of the seal that somebody else holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from fccl.paths import LogPaths
from fccl.records.seal import Seal, SealedFile
from fccl.storage.files import read_whole, storage_errors, write_bytes

Sign = Callable[[bytes], str]  # a signature of the server's, in base64


def seal_run(paths: LogPaths, run_id: str, last_line: str, sign: Sign | None = None) -> Seal:
    """Write `seal.json` for the run's files as they are, with `last_line` at the end of its record.

    It is written before that line, so a run that says that it is finished is sealed. Raises `StorageError`.
    """
    files = {path.relative_to(paths.root).as_posix(): _sealed(read_whole(path)) for path in sealed_files(paths)}
    files[paths.progress.name] = _sealed(read_whole(paths.progress) + last_line.encode() + b"\n")
    seal = Seal(run_id=run_id, files=files)
    if sign is not None:
        seal = seal.model_copy(update={"signature": sign(seal.signed_content())})
    write_bytes(paths.seal, seal.written())
    return seal


def sealed_files(paths: LogPaths) -> Iterator[Path]:
    """The files that a seal speaks of, in a fixed order: all that the run wrote, but for what others look at or add to.

    Of a kept round `round.json` is one; that and the round's record name its other files by their hashes.
    """
    with storage_errors(paths.root, "read"):
        single = (path for path in paths.sealed_entries() if path.is_file())
        below = (path for folder in paths.sealed_folders() for path in folder.rglob("*") if path.is_file())
        kept = paths.kept.glob("round_*/round.json")
        yield from sorted([*single, *below, *kept])


def is_as_sealed(path: Path, said: SealedFile, grows: bool) -> bool:
    """Whether a file has the bytes that were sealed; one that `grows` may have more after them.

    Raises `StorageError`.
    """
    content = read_whole(path)
    if len(content) != said.length and not (grows and len(content) > said.length):
        return False
    return _sealed(content[: said.length]) == said


def _sealed(content: bytes | bytearray) -> SealedFile:
    return SealedFile(sha256=hashlib.sha256(content).hexdigest(), length=len(content))
