"""Reading the answers of clients, believing nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fccl.errors import AdapterError, ForeignAnswer, UpdateRejected
from fccl.exchange.wire import MAX_ADAPTER_BYTES, MAX_JSON_BYTES, AdapterFile, FailureFile, TaskFile, UpdateFile
from fccl.keys import PublicKeys
from fccl.paths import ExchangePaths
from fccl.reading import NotJson, json_value, parse, printable, read_bounded
from fccl.records import Contribution, TrainingReport
from fccl.stored import AdapterReader


@dataclass(frozen=True)
class GoodFile:
    """An adapter's file that was checked: its bytes, their SHA-256, and what read them."""

    content: bytearray
    sha256: str
    reader: AdapterReader


@dataclass(frozen=True)
class GoodAnswer:
    """An update that was checked, what the client says of its training, and SCAFFOLD's c_i where it was asked for."""

    update: GoodFile
    control: GoodFile | None
    contribution: Contribution
    report: TrainingReport


@dataclass(frozen=True)
class AnswerReader:
    """Reads the answers to one task. `published` is when its phase file was written, in nanoseconds since 1970 by the files' own clock.

    `adapters` reads updates of the federation's rank, `of_rank` gives what reads those of another, or raises `AdapterError` when it is not allowed.
    """

    paths: ExchangePaths
    task: TaskFile
    adapters: AdapterReader
    of_rank: Callable[[int], AdapterReader]
    public: PublicKeys | None
    published: int

    def read(self, client_id: int) -> GoodAnswer | FailureFile:
        """A client's committed answer.

        Raises `ForeignAnswer` when it is not this client's to this task (its own may still come), `UpdateRejected` when it is but is
        no good.
        """
        path = self.paths.contribution(client_id, self.task.round)
        content = read_bounded(path, MAX_JSON_BYTES)
        if _is_failure(content, path.name):
            failure = parse(content, FailureFile, path.name)
            self._require_answers(failure, client_id)
            return failure
        said = parse(content, UpdateFile, path.name)
        self._require_answers(said, client_id)
        return self._with_adapters(client_id, said)

    def _require_answers(self, said: UpdateFile | FailureFile, client_id: int) -> None:
        asked = {"run_id": self.task.run_id, "round": self.task.round, "phase": self.task.phase, "client_id": client_id}
        for field, expected in asked.items():
            if (value := getattr(said, field)) != expected:
                raise ForeignAnswer(printable(f"the answer is of {field} {value!r}, asked was {expected!r}"))
        if said.base_sha256 != self.task.adapter.sha256:
            raise ForeignAnswer("the training began from another global adapter than this round's")
        if self.public is not None and not said.is_of_client(client_id, self.public):
            raise ForeignAnswer(f"client {client_id} has not signed it" if not said.signature else f"the signature is not client {client_id}'s")

    def _with_adapters(self, client_id: int, said: UpdateFile) -> GoodAnswer:
        """The files that a contribution names, when they are what it says."""
        asked = self.task.work is not None and self.task.work.corrections is not None
        if asked and said.control is None:
            raise UpdateRejected("the answer has no control variate, which AGGREGATION=scaffold needs")
        reader = self._reader(said.lora_r)
        found = _adapter(self.paths.update(client_id, self.task.round), said.adapter, reader)
        control = None
        if asked and said.control is not None:
            control = _adapter(self.paths.control(client_id, self.task.round), said.control, self.adapters)
        return GoodAnswer(found, control, said.contribution(), said.report)

    def _reader(self, rank: int | None) -> AdapterReader:
        """What reads an update of this rank, or of the federation's."""
        try:
            return self.adapters if rank is None else self.of_rank(rank)
        except AdapterError as error:
            raise UpdateRejected(str(error)) from error


def _adapter(path: Path, file: AdapterFile, reader: AdapterReader) -> GoodFile:
    if file.length > reader.max_bytes:
        raise UpdateRejected(f"{path.name} has {file.length:,} bytes, at most {reader.max_bytes:,} are possible")
    content = read_named(path, file, "its contribution")
    try:
        reader.read(content, path.name)
    except AdapterError as error:
        raise UpdateRejected(str(error)) from error
    return GoodFile(content, file.sha256, reader)


def read_named(path: Path, file: AdapterFile, by: str) -> bytearray:
    """The content of an adapter's file that another file names; its length is compared before anything is read.

    Raises `UpdateRejected` when it is another one.
    """
    content = read_bounded(path, MAX_ADAPTER_BYTES, file.length)
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise UpdateRejected(f"{path.name} is not the file that {by} speaks of")
    return content


def _is_failure(content: bytearray, name: str) -> bool:
    """Whether a contribution says that there is no update. Raises `UpdateRejected` when it is no JSON object."""
    try:
        said = json_value(content)
    except NotJson as error:
        raise UpdateRejected(f"{name} {error}") from error
    if not isinstance(said, dict):
        raise UpdateRejected(f"{name} is not a JSON object")
    return "error" in said
