"""The prepared folder: one client's shard, the server's files, and the manifest that makes them complete."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from fccl import phases
from fccl.data.examples import PreferencePair, SftExample, no_examples, read_examples, read_parts, write_examples
from fccl.errors import DataError, StorageError
from fccl.paths import DataPaths, LogPaths
from fccl.records.manifest import Manifest
from fccl.specs import PHASES, Phase
from fccl.storage.files import new_folder, replace_folder, sha256_of, storage_errors, write_bytes, write_text
from fccl.storage.reading import NotJson, json_value
from fccl.storage.temporary import is_temporary, sweep

Examples = Sequence[SftExample] | Sequence[PreferencePair]
_PREPARED = re.compile(
    "(client_[0-9]+|learn|validation|test)_(sft|va)[.]jsonl"
)  # what `write_prepared` writes into the two folders


@dataclass(frozen=True)
class ClientShard:
    """The examples that one client trains on.

    Shards are disjoint, and together they are the training split (before noise made on purpose).
    """

    client_id: int
    sft: tuple[SftExample, ...]
    va: tuple[PreferencePair, ...]
    test_sft: tuple[SftExample, ...] = ()  # kept apart: the client scores adapters on them, and never trains on them
    test_va: tuple[PreferencePair, ...] = ()

    def tests_of(self, phase: Phase) -> Examples:
        """The examples of one kind that the client keeps apart."""
        return self.test_sft if phase == "sft" else self.test_va

    def of(self, phase: Phase) -> Examples:
        return self.sft if phase == "sft" else self.va

    def require(self, phase: Phase) -> Examples:
        """The examples of the phase. Raises `DataError` when there are none."""
        if not self.of(phase):
            raise DataError(f"client {self.client_id} has no {phases.of(phase).noun}s")
        return self.of(phase)


def load_shard(paths: DataPaths, client_id: int, manifest: Manifest | None = None) -> ClientShard:
    """One client's shard; reads that client's two files and nothing else.

    A client may have examples of one kind alone. Raises `DataError` when a file is missing or both are empty, `BadRow`
    when a line is malformed, `StorageError` when it is not the one of the manifest.
    """
    if manifest is not None:
        require_unchanged(paths, manifest, [paths.shard(client_id, phase) for phase in PHASES])
    sft, test_sft = read_parts(paths.shard(client_id, "sft"), SftExample)
    va, test_va = read_parts(paths.shard(client_id, "va"), PreferencePair)
    if not (sft or va):
        raise no_examples(paths.shard(client_id, "va"))
    return ClientShard(client_id, tuple(sft), tuple(va), tuple(test_sft), tuple(test_va))


def server_examples(paths: DataPaths, split: str, phase: Phase) -> tuple[SftExample, ...] | tuple[PreferencePair, ...]:
    """The examples of one kind in a split that the server keeps.

    Raises `DataError` when there are none, `BadRow` on a bad line.
    """
    path = paths.server_split(split, phase)
    return tuple(read_examples(path, SftExample)) if phase == "sft" else tuple(read_examples(path, PreferencePair))


def read_manifest(paths: DataPaths | LogPaths) -> Manifest:
    """The manifest of prepared data, or a run's copy of it. Raises `DataError` when there is none or it is not one."""
    if not paths.manifest.is_file():
        raise DataError(
            f"{paths.root} holds no prepared data", hint="run `fccl prepare` first, or name the folder with --data-dir"
        )
    with storage_errors(paths.manifest, "read"):
        content = paths.manifest.read_bytes()
    try:
        json_value(content)
        return Manifest.model_validate_json(content)
    except (NotJson, ValidationError) as error:
        raise DataError(
            f"{paths.manifest} is not a manifest of this version",
            hint="prepare the data again, with the same settings"
            if isinstance(paths, DataPaths)
            else "put a copy of the file back, or start the run anew",
        ) from error


def require_unchanged(paths: DataPaths, manifest: Manifest, files: Iterable[Path]) -> None:
    """Raises `StorageError` unless these files have the content that they had when the manifest was written."""
    for file in files:
        if sha256_of(file) != manifest.files.get(file.relative_to(paths.root).as_posix()):
            raise StorageError(
                f"{file} is not what it was when the data was prepared",
                hint="prepare the data again, with the same settings",
            )


def is_complete(paths: DataPaths, manifest: Manifest) -> bool:
    """Whether every file of the manifest is there with the content that it had."""
    return all(
        (paths.root / name).is_file() and sha256_of(paths.root / name) == digest
        for name, digest in manifest.files.items()
    )


def has_learn_split(manifest: Manifest) -> bool:
    """Whether the data has examples that weights may use; that of version 0.1 has none."""
    return "learn" in manifest.counts


def write_prepared(
    paths: DataPaths, shards: Sequence[ClientShard], server: Mapping[tuple[str, Phase], Examples], picture: bytes | None
) -> dict[str, str]:
    """Put the shards, the server's files and the picture in the place of older ones; returns the SHA-256 of each data
    file, for the manifest.

    Everything is written beside first. The old manifest goes before the first folder is exchanged and the caller writes
    the new one last, so a folder that was only half exchanged never looks complete. Raises `StorageError`; older data
    are then untouched.
    """
    with storage_errors(paths.root):
        paths.root.mkdir(parents=True, exist_ok=True)
        _refuse_foreign_files(paths)
    sweep(paths.root)
    with new_folder(paths.root / "prepared") as new:
        beside = DataPaths(new)
        for file, examples, apart in _files(beside, shards, server):
            write_examples(file, examples, apart)
        with storage_errors(beside.clients):
            beside.clients.mkdir(exist_ok=True)  # of data without shards it stays empty
        if picture is not None:
            write_bytes(beside.picture, picture)
        digests = {
            file.relative_to(beside.root).as_posix(): sha256_of(file) for file, *_ in _files(beside, shards, server)
        }
        with storage_errors(paths.root):
            paths.picture.unlink(missing_ok=True)
            paths.manifest.unlink(missing_ok=True)
        replace_folder(beside.clients, paths.clients)
        replace_folder(beside.server, paths.server)
        with storage_errors(paths.picture):
            if picture is not None:
                os.replace(beside.picture, paths.picture)
    return digests


def commit(paths: DataPaths, manifest: Manifest) -> None:
    """Write the manifest, which makes the folder complete."""
    write_text(paths.manifest, manifest.model_dump_json(indent=1) + "\n")


def _files(
    paths: DataPaths, shards: Sequence[ClientShard], server: Mapping[tuple[str, Phase], Examples]
) -> list[tuple[Path, Examples, Examples]]:
    """Every file with its examples, and those that a client keeps apart."""
    clients = [
        (paths.shard(shard.client_id, phase), shard.of(phase), shard.tests_of(phase))
        for shard in shards
        for phase in PHASES
    ]
    return clients + [(paths.server_split(split, phase), examples, ()) for (split, phase), examples in server.items()]


def _refuse_foreign_files(paths: DataPaths) -> None:
    """The two folders are exchanged whole, so they must hold nothing but what an earlier preparation wrote."""
    for folder in (paths.clients, paths.server):
        for path in sorted(folder.glob("*")) if folder.is_dir() else ():
            if not (_PREPARED.fullmatch(path.name) or is_temporary(path.name)):
                raise DataError(
                    f"{path} is not a file of prepared data, and preparing would delete it",
                    hint="name another folder with --data-dir",
                )
