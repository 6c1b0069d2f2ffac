"""The server's side of the directory between rounds: rounds are opened, old ones cleared away, strangers' files
refused.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fccl.adapters.adapter import Adapter
from fccl.errors import UpdateRejected
from fccl.keys import Keys
from fccl.paths import ExchangeName, ExchangePaths
from fccl.records.run import ClientStatus
from fccl.storage.files import storage_errors
from fccl.storage.reading import identity, parse, read_bounded
from fccl.storage.temporary import is_old, is_temporary
from fccl.transports.exchange.original import original_bytes
from fccl.transports.exchange.quarantine import Quarantine
from fccl.transports.exchange.watch import ring
from fccl.transports.exchange.wire import (
    MAX_TASK_BYTES,
    VERSION,
    AdapterFile,
    FitWork,
    MemberFile,
    RequestFile,
    TaskFile,
)

_OF_CLIENTS = ("client_", "contrib_", "control_", "done_", "reply_", "member_")
_BY_HASH = ("reference", "correction", "adapter")  # adapters that a task or a request names
_PHASES_FIRST = ("phase", "flag")  # what commits other files goes before them


@dataclass(frozen=True)
class Rounds:
    """Writes rounds into the directory. Only one process at a time may (`fccl.storage.locks`)."""

    paths: ExchangePaths
    run_id: str
    run_created: float
    is_client: Callable[[int], bool]
    keep_rounds: int
    keys: Keys | None
    quarantine: Quarantine
    originals: bool = False  # whether there are peers that know only the original files
    _published: dict[Path, tuple[int, int, int] | None] = field(
        default_factory=dict
    )  # the open round's files, as they were written

    def clear_other_runs(self) -> None:
        """Remove every round that is not of this run, the clients' answers to it, and their heartbeats; who lives beats
        again.
        """
        files = self._files()
        ours = {
            name.round
            for text, name in files
            if name.kind == "task" and self._is_ours(self.paths.root / text, TaskFile)
        }
        ours |= {self._round_of_request()}
        self._remove(
            self.paths.root / text for text, name in files if not self._stays(self.paths.root / text, name, ours)
        )

    def keep(self, adapter: Adapter, path: Callable[[str], Path]) -> AdapterFile:
        """See that an adapter that a task is to name is there, at `path` of its hash.

        Returns what is to be said of its file.
        """
        content = adapter.to_bytes()
        file = AdapterFile.of(content)
        if not self._holds({path(file.sha256): content}):
            self.quarantine.write(path(file.sha256), content, self.run_id)
        return file

    def open(
        self, round_number: int, phase: str, adapter: Adapter, work: FitWork | None, coded: bytes | None = None
    ) -> TaskFile:
        """Publish a round: the global adapter, also in few bytes if there are such, the task, and last the phase.

        What is there already, to the byte, stays untouched.
        """
        content = adapter.to_bytes()
        task = self.task(round_number, phase, content, work).model_copy(update={"revoked": self._revoked()})
        task = task.signed(self.keys)
        files = {self.paths.global_adapter(round_number): content, self.paths.task(round_number): task.written()}
        if self.originals:
            files[self.paths.original_global(round_number)] = original_bytes(adapter)
        if coded is not None:
            files = {self.paths.coded_global(round_number): coded, **files}
        self._clear_later(round_number)
        if not self._holds(files | {self.paths.phase(round_number): phase.encode()}):
            self._remove([self.paths.phase(round_number)])
            for path, wanted in (files | {self.paths.phase(round_number): phase.encode()}).items():
                self.quarantine.write(path, wanted, self.run_id, round_number)
        self._remember(task)
        self.ring()
        return task

    def _revoked(self) -> tuple[int, ...]:
        """The clients whose keys are revoked by now: each is told so."""
        return tuple(sorted(self.keys.current().revoked)) if self.keys else ()

    def task(self, round_number: int, phase: str, adapter: bytes, work: FitWork | None) -> TaskFile:
        """The content of a round's task, unsigned; `adapter` is that of the global adapter's file."""
        said = {"version": VERSION, "run_id": self.run_id, "run_created": self.run_created, "round": round_number}
        return TaskFile.model_validate(said | {"phase": phase, "adapter": AdapterFile.of(adapter), "work": work})

    def ring(self) -> None:
        """Wake the clients."""
        self.quarantine.clear_for_folder(self.paths.bell)
        self.quarantine.clear_for_file(self.paths.bell / "rung", self.run_id)
        ring(self.paths.bell)

    def stands(self) -> bool:
        """Whether the files of the open round are those that were written: only the server may change them, but others
        can.
        """
        return all(known is not None and identity(path) == known for path, known in self._published.items())

    def write_request(self, file: RequestFile) -> None:
        """Open a request of another kind than `fit`, and wake the clients; to the byte the same stays untouched."""
        if not self._holds({self.paths.request: file.written()}):
            self.quarantine.write(self.paths.request, file.written(), self.run_id, file.round)
        self.ring()

    def close_request(self) -> None:
        """Take the open request away, if there is one."""
        self._remove([self.paths.request])

    def tidy(self, task: TaskFile) -> None:
        """Clear away what is no longer needed, and what nobody should have written.

        The clients are at work meanwhile.
        """
        self._prune(task.round, task.work)
        self._sweep(task.round)

    def opened(self, round_number: int) -> int:
        """When the round was opened, in nanoseconds since 1970 by the file system's clock.

        Now, when its phase file was taken away at once.
        """
        written = self._published.get(self.paths.phase(round_number)) or identity(self.paths.phase(round_number))
        return written[1] if written else time.time_ns()

    def take_back(self, client_id: int, round_number: int) -> None:
        """Remove a client's answer, so that it tries again."""
        self._remove(self.paths.taken_away(client_id, round_number))

    def _remember(self, task: TaskFile) -> None:
        named = task.work.named(self.paths) if task.work else set()
        files = {
            self.paths.global_adapter(task.round),
            self.paths.task(task.round),
            self.paths.phase(task.round),
            *named,
        }
        if self.originals:
            files.add(self.paths.original_global(task.round))
        if task.work and task.work.coded:
            files.add(self.paths.coded_global(task.round))
        known = {path: identity(path) for path in files}
        self._published.clear()
        self._published.update(known)

    def _files(self) -> list[tuple[str, ExchangeName]]:
        """The files of the protocol, those that commit others first."""
        with storage_errors(self.paths.root, "read"):
            names = sorted(os.listdir(self.paths.root))
        found = [(text, name) for text in names if (name := self.paths.name(text)) is not None]
        return sorted(found, key=lambda pair: pair[1].kind not in _PHASES_FIRST)

    def _stays(self, path: Path, name: ExchangeName, ours: set[int | None]) -> bool:
        if name.kind == "status":
            return self._is_ours(path, ClientStatus)
        if name.kind == "member":
            return self._is_ours(path, MemberFile)
        if name.kind == "request":
            return self._is_ours(path, RequestFile)
        return name.kind in _BY_HASH or name.round in ours

    def _round_of_request(self) -> int | None:
        """The round of the open request of this run: it may be one whose task is not there yet."""
        with suppress(UpdateRejected):
            request = parse(read_bounded(self.paths.request, MAX_TASK_BYTES), RequestFile, self.paths.request.name)
            return request.round if request.run_id == self.run_id else None
        return None

    def _is_ours(self, path: Path, kind: type[TaskFile | ClientStatus | RequestFile | MemberFile]) -> bool:
        with suppress(UpdateRejected):
            return parse(read_bounded(path, MAX_TASK_BYTES), kind, path.name).run_id == self.run_id
        return False

    def _holds(self, files: dict[Path, bytes]) -> bool:
        try:
            return all(read_bounded(path, len(content)) == content for path, content in files.items())
        except UpdateRejected:
            return False

    def _clear_later(self, round_number: int) -> None:
        """Rounds that this one comes before: opened by a server that was since restored to an older state, or
        made up."""
        later = [(text, name) for text, name in self._files() if name.round is not None and name.round > round_number]
        self._remove(self.paths.root / text for text, name in later if name.client is None)
        for text, name in later:
            if name.kind == "reply":
                self._refuse(text, "of a round that has not begun", round_number, name.client)
        for client_id, number in sorted(
            {
                (name.client, name.round)
                for _, name in later
                if name.client is not None and name.round is not None and name.kind != "reply"
            }
        ):
            self.quarantine.refuse(
                self.paths.taken_away(client_id, number),
                "of a round that has not begun",
                self.run_id,
                number,
                client_id,
            )

    def _prune(self, round_number: int, work: FitWork | None) -> None:
        """Remove rounds that are over, but for the last few, and what this round's task does not name."""
        oldest = round_number - self.keep_rounds
        named = {path.name for path in work.named(self.paths)} if work else set()
        for text, name in self._files():
            if (name.round is not None and name.round < oldest) or (name.kind in _BY_HASH and text not in named):
                self._remove([self.paths.root / text])

    def _sweep(self, round_number: int) -> None:
        """Refuse files that look like a client's and are none, and forget temporary files of processes that died."""
        with storage_errors(self.paths.root, "read"):
            names = sorted(os.listdir(self.paths.root))
        for text in names:
            name = self.paths.name(text)
            if is_temporary(text) and is_old(self.paths.root / text):
                self._remove([self.paths.root / text])
            elif name is None and text.startswith(_OF_CLIENTS):
                if not text.endswith(".lock"):
                    self._refuse(text, "not a file name of the protocol", round_number)
            elif (
                name is not None
                and name.client is not None
                and not self.is_client(name.client)
                and name.kind != "status"
            ):
                self._refuse(text, f"there is no client {name.client}", round_number, name.client)

    def _refuse(self, text: str, reason: str, round_number: int, client_id: int | None = None) -> None:
        self.quarantine.refuse([self.paths.root / text], reason, self.run_id, round_number, client_id)

    def _remove(self, paths: Iterable[Path]) -> None:
        for path in paths:
            self.quarantine.remove(path, self.run_id)
