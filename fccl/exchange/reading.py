"""Reading the answers of clients, believing nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fccl.errors import AdapterError, ForeignAnswer, UpdateRejected
from fccl.exchange.wire import MAX_JSON_BYTES, FailureFile, OriginalContribution, TaskFile, UpdateFile
from fccl.keys import PublicKeys
from fccl.paths import ExchangePaths
from fccl.reading import identity, parse, printable, read_bounded
from fccl.records import Contribution, TrainingReport
from fccl.stored import AdapterReader

_LONGEST_S = 1e9  # a file's time is what its writer says it is


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
        kind = _kind_of(content, path.name)
        if kind is OriginalContribution:
            return self._original(client_id, parse(content, OriginalContribution, path.name))
        if kind is FailureFile:
            failure = parse(content, FailureFile, path.name)
            self._require_answers(failure, client_id)
            return failure
        said = parse(content, UpdateFile, path.name)
        self._require_answers(said, client_id)
        return self._with_adapters(client_id, said.contribution(), said.report, said.adapter_sha256, said.control_sha256, said.lora_r)

    def _require_answers(self, said: UpdateFile | FailureFile, client_id: int) -> None:
        asked = {"run_id": self.task.run_id, "round": self.task.round, "phase": self.task.phase, "client_id": client_id}
        for field, expected in asked.items():
            if (value := getattr(said, field)) != expected:
                raise ForeignAnswer(printable(f"the answer is of {field} {value!r}, asked was {expected!r}"))
        if said.base_sha256 != self.task.adapter_sha256:
            raise ForeignAnswer("the training began from another global adapter than this round's")
        if self.public is not None and not said.is_of_client(client_id, self.public):
            raise ForeignAnswer(f"client {client_id} has not signed it" if not said.signature else f"the signature is not client {client_id}'s")

    def _original(self, client_id: int, said: OriginalContribution) -> GoodAnswer:
        """A peer that knows only the original files: its files' names and times are all that binds its answer to the round."""
        if self.public is not None:
            raise ForeignAnswer(f"client {client_id} has not signed it, and keys are configured")
        for field, expected in (("client", client_id), ("round", self.task.round), ("phase", self.task.phase)):
            if (value := getattr(said, field)) not in (None, expected):
                raise ForeignAnswer(printable(f"the answer is of {field} {value!r}, asked was {expected!r}"))
        files = self.paths.answer(client_id, self.task.round)
        written = [found[1] for path in files if (found := identity(path)) is not None]
        if min(written, default=0) < self.published:
            raise ForeignAnswer("the answer is older than the round")
        seconds = min(_LONGEST_S, (max(written) - self.published) / 1e9) if said.training_time is None else said.training_time
        contribution = Contribution(avg_loss=said.avg_loss, num_samples=said.num_samples, seconds=seconds)
        return self._with_adapters(client_id, contribution, TrainingReport(tokens=0, tokens_per_second=0, steps=0), None, None)

    def _with_adapters(
        self, client_id: int, contribution: Contribution, report: TrainingReport, update: str | None, control: str | None, rank: int | None = None
    ) -> GoodAnswer:
        """`update` and `control` are the hashes that the client names, if any; `rank` is that of its update, where it is not the federation's."""
        asked = self.task.work is not None and self.task.work.corrections is not None
        if asked and control is None:
            raise UpdateRejected("the answer has no control variate, which AGGREGATION=scaffold needs")
        found = self._adapter(self.paths.update(client_id, self.task.round), update, rank)
        return GoodAnswer(found, self._adapter(self.paths.control(client_id, self.task.round), control) if asked else None, contribution, report)

    def _adapter(self, path: Path, sha256: str | None, rank: int | None = None) -> GoodFile:
        try:
            reader = self.adapters if rank is None else self.of_rank(rank)
        except AdapterError as error:
            raise UpdateRejected(str(error)) from error
        content = read_bounded(path, reader.max_bytes)
        found = hashlib.sha256(content).hexdigest()
        if sha256 not in (None, found):
            raise UpdateRejected(f"{path.name} is not the file that its contribution speaks of")
        try:
            reader.read(content, path.name)
        except AdapterError as error:
            raise UpdateRejected(printable(str(error))) from error
        return GoodFile(content, found, reader)


def _kind_of(content: bytearray, name: str) -> type[UpdateFile] | type[FailureFile] | type[OriginalContribution]:
    """Which kind of contribution file this is, by the fields that only one kind has. Raises `UpdateRejected` when it is no JSON object."""
    try:
        keys = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UpdateRejected(f"{name} is not JSON ({type(error).__name__})") from error
    if not isinstance(keys, dict):
        raise UpdateRejected(f"{name} is not a JSON object")
    if "error" in keys:
        return FailureFile
    return UpdateFile if keys.keys() & {"version", "run_id", "signature", "base_sha256", "adapter_sha256"} else OriginalContribution
