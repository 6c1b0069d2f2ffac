"""Reading the answers of clients, believing nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path

from fccl.adapters.adapter import Adapter
from fccl.adapters.coded import CodedReader
from fccl.adapters.recent import Checked
from fccl.adapters.stored import AdapterReader
from fccl.display.plain_text import printable
from fccl.errors import AdapterError, ForeignAnswer, UpdateRejected
from fccl.keys import PublicKeys
from fccl.messages.requests import require_loss
from fccl.paths import ExchangePaths
from fccl.privacy.cohort import MaskedBy
from fccl.records.run import Contribution, TrainingReport
from fccl.storage.reading import NotJson, identity, json_value, parse, read_bounded
from fccl.transports.exchange.original import OriginalReader
from fccl.transports.exchange.wire import (
    MAX_ADAPTER_BYTES,
    MAX_JSON_BYTES,
    AdapterFile,
    FailureFile,
    OriginalContribution,
    TaskFile,
    UpdateFile,
)

_LONGEST_S = 1e9  # a file's time is what its writer says it is
_NEVER_ORIGINAL = frozenset(
    {"error", "version", "run_id", "signature", "base_sha256", "adapter"}
)  # fields of this protocol alone


@dataclass(frozen=True)
class GoodFile:
    """An adapter's file that was checked: its bytes and the adapter in them, their SHA-256, and what read them."""

    checked: Checked
    sha256: str
    reader: AdapterReader


@dataclass(frozen=True)
class GoodAnswer:
    """An update that was checked, what the client says of its training, and SCAFFOLD's c_i where it was asked for."""

    update: GoodFile
    control: GoodFile | None
    contribution: Contribution
    report: TrainingReport
    signed: str = ""  # the file that the client has signed
    sent: int | None = None  # bytes of the update as it came, where a codec made them fewer
    masked: MaskedBy | None = None


@dataclass(frozen=True)
class AnswerReader:
    """Reads the answers to one task. `published` is when its phase file was written, in nanoseconds since 1970 by the
    files' own clock.

    `adapters` reads updates of the federation's rank, `of_rank` gives what reads those of another, or raises
    `AdapterError` when it is not allowed. `coded` gives the same for updates that are the change of the round's
    adapter, where the task asks for a codec.
    """

    paths: ExchangePaths
    task: TaskFile
    adapters: AdapterReader
    of_rank: Callable[[int], AdapterReader]
    public: PublicKeys | None
    published: int
    originals: tuple[int, ...] = ()  # clients that are peers of the original protocol
    coded: Callable[[int | None], CodedReader] | None = None

    def read(self, client_id: int) -> GoodAnswer | FailureFile:
        """A client's committed answer.

        Raises `ForeignAnswer` when it is not this client's to this task (its own may still come), `UpdateRejected` when
        it is but is no good.
        """
        path = self.paths.contribution(client_id, self.task.round)
        content = read_bounded(path, MAX_JSON_BYTES)
        fields = _fields(content, path.name)
        if not fields & _NEVER_ORIGINAL:
            return self._original(client_id, parse(content, OriginalContribution, path.name))
        if "error" in fields:
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
        if isinstance(said, UpdateFile) and not said.is_masked_for(self.task):
            raise ForeignAnswer("the update is not masked for this attempt at the round")
        if self.public is not None and (doubt := said.doubt(client_id, self.public)):
            raise ForeignAnswer(doubt)

    def _with_adapters(self, client_id: int, said: UpdateFile) -> GoodAnswer:
        """The files that a contribution names, when they are what it says."""
        if self.task.work is not None:
            require_loss(said.avg_loss, self.task.phase, self.task.work.train.preference)
        asked = self.task.work is not None and self.task.work.corrections is not None
        if asked and said.control is None:
            raise UpdateRejected("the answer has no control variate, which AGGREGATION=scaffold needs")
        if self.coded is not None:
            found, sent = self._decoded(client_id, said, self.coded), said.adapter.length
        else:
            path = self.paths.update(client_id, self.task.round)
            found, sent = _adapter(path, said.adapter, self._reader(said.lora_r)), None
        control = None
        if asked and said.control is not None:
            control = _adapter(self.paths.control(client_id, self.task.round), said.control, self.adapters)
        signed = said.written().decode() if self.public is not None else ""
        return GoodAnswer(found, control, said.contribution(), said.report, signed, sent, said.masked)

    def _decoded(self, client_id: int, said: UpdateFile, of_rank: Callable[[int | None], CodedReader]) -> GoodFile:
        """An update that came as a change, in the container that everybody's is kept in."""
        path = self.paths.coded_update(client_id, self.task.round)
        try:
            reader = of_rank(said.lora_r)
            if said.adapter.length != reader.length:
                raise UpdateRejected(f"{path.name} has {said.adapter.length:,} bytes, not {reader.length:,}")
            adapter = reader.read(read_named(path, said.adapter, "its contribution"), path.name)
        except AdapterError as error:
            raise UpdateRejected(str(error)) from error
        return _as_kept(adapter, self._reader(said.lora_r))

    def _original(self, client_id: int, said: OriginalContribution) -> GoodAnswer:
        """The answer of a peer of the original protocol: its files' names and times are all that binds it to the round.

        Its update is kept in the container that everybody's is in.
        """
        self._require_original(client_id, said)
        seconds = self._since_published(client_id)
        path, reader = self.paths.original_update(client_id, self.task.round), OriginalReader(self.adapters.form)
        try:
            adapter = reader.read(read_bounded(path, reader.max_bytes), path.name)
        except AdapterError as error:
            raise UpdateRejected(str(error)) from error
        contribution = said.contribution(seconds)
        return GoodAnswer(
            _as_kept(adapter, self.adapters), None, contribution, TrainingReport(tokens=0, tokens_per_second=0, steps=0)
        )

    def _require_original(self, client_id: int, said: OriginalContribution) -> None:
        if self.public is not None:
            raise ForeignAnswer(f"client {client_id} has not signed it, and keys are configured")
        if client_id not in self.originals:
            raise UpdateRejected(
                f"the answer has only the original fields, and ORIGINAL_CLIENTS does not name client {client_id}"
            )
        for field, expected in (("client", client_id), ("round", self.task.round), ("phase", self.task.phase)):
            if (value := getattr(said, field)) not in (None, expected):
                raise ForeignAnswer(printable(f"the answer is of {field} {value!r}, asked was {expected!r}"))

    def _since_published(self, client_id: int) -> float:
        """Seconds from the phase file to the last file of an original answer, of which none may be older."""
        update, (_, *others) = (
            self.paths.original_update(client_id, self.task.round),
            self.paths.answer(client_id, self.task.round),
        )
        written = [found[1] for path in (update, *others) if (found := identity(path)) is not None]
        if min(written, default=0) < self.published:
            raise ForeignAnswer("the answer is older than the round")
        return min(_LONGEST_S, (max(written) - self.published) / 1e9)

    def _reader(self, rank: int | None) -> AdapterReader:
        """The reader of an update of this rank, or of the federation's."""
        try:
            return self.adapters if rank is None else self.of_rank(rank)
        except AdapterError as error:
            raise UpdateRejected(str(error)) from error


def _adapter(path: Path, file: AdapterFile, reader: AdapterReader) -> GoodFile:
    if file.length > reader.max_bytes:
        raise UpdateRejected(f"{path.name} has {file.length:,} bytes, at most {reader.max_bytes:,} are possible")
    content = read_named(path, file, "its contribution")
    try:
        adapter = reader.read(content, path.name)
    except AdapterError as error:
        raise UpdateRejected(str(error)) from error
    return GoodFile(Checked(content, adapter), file.sha256, reader)


def _as_kept(adapter: Adapter, reader: AdapterReader) -> GoodFile:
    """An adapter that came in another container, in the usual one."""
    content = bytearray(adapter.to_bytes())
    return GoodFile(Checked(content, adapter), hashlib.sha256(content).hexdigest(), reader)


def read_named(path: Path, file: AdapterFile, by: str) -> bytearray:
    """The content of an adapter's file that another file names; its length is compared before anything is read.

    Raises `UpdateRejected` when it is another one.
    """
    content = read_bounded(path, MAX_ADAPTER_BYTES, file.length)
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise UpdateRejected(f"{path.name} is not the file that {by} speaks of")
    return content


def _fields(content: bytearray, name: str) -> Set[str]:
    """The fields of a contribution. Raises `UpdateRejected` when it is no JSON object."""
    try:
        said = json_value(content)
    except NotJson as error:
        raise UpdateRejected(f"{name} {error}") from error
    if not isinstance(said, dict):
        raise UpdateRejected(f"{name} is not a JSON object")
    return said.keys()
