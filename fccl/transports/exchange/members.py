"""`member_i.json`: a client joins or leaves an open federation. Both sides of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fccl.errors import FederationError, UpdateRejected
from fccl.keys import Keys, PublicKeys
from fccl.messages import Statement
from fccl.paths import ExchangePaths
from fccl.storage.files import storage_errors
from fccl.storage.reading import identity, parse, read_bounded
from fccl.transports.exchange.quarantine import Quarantine
from fccl.transports.exchange.wire import MAX_JSON_BYTES, VERSION, MemberFile, TaskFile

HAS_LEFT = "has left"
IS_REVOKED = "its key is revoked"


def state(
    paths: ExchangePaths, keys: Keys | None, task: TaskFile, client_id: int, move: Literal["join", "leave"]
) -> None:
    """Write a client's statement for the run of this task, later than its last one. Raises `StorageError`."""
    said = MemberFile(
        version=VERSION,
        run_id=task.run_id,
        round=task.round,
        client_id=client_id,
        move=move,
        time=max(time.time(), _last(paths, client_id) + 1e-6),
    ).signed(keys)
    Quarantine(paths).write(paths.member(client_id), said.written(), task.run_id, task.round, client_id)


def require_open(task: TaskFile | None, keys: Keys | None) -> TaskFile:
    """The newest task of a run that can be left. Raises `FederationError` when there is none, it is not open, or the
    client could not sign that it leaves.
    """
    if keys is None:
        raise FederationError("who leaves signs it, and the client has no key", hint="name its folder with --keys-dir")
    if task is None or task.work is None:
        raise FederationError("there is no run to leave: no round is open", hint="name the right --exchange-dir")
    if not task.work.open:
        raise FederationError(
            "this federation has fixed members, and a client cannot leave it",
            hint="the orchestrator's --open lets clients join and leave",
        )
    return task


def has_joined(paths: ExchangePaths, run_id: str, client_id: int) -> bool:
    """Whether the client's newest statement says that it joins this run."""
    said = _own(paths, client_id)
    return said is not None and (said.run_id, said.move) == (run_id, "join")


def _own(paths: ExchangePaths, client_id: int) -> MemberFile | None:
    path = paths.member(client_id)
    try:
        return parse(read_bounded(path, MAX_JSON_BYTES), MemberFile, path.name)
    except UpdateRejected:
        return None


def _last(paths: ExchangePaths, client_id: int) -> float:
    said = _own(paths, client_id)
    return -1.0 if said is None else said.time


@dataclass
class Statements:
    """The server's side: reads statements, refuses those that are not their client's, and knows who is gone.

    `public` has everybody's public keys as they are now; without keys, or where the federation is not open, no
    statement is read. `known` are the times of those that were taken.
    """

    paths: ExchangePaths
    quarantine: Quarantine
    public: Callable[[], PublicKeys | None]
    open: bool
    known: Mapping[int, float] = field(default_factory=dict)
    _read: dict[int, tuple[tuple[int, int, int], MemberFile | None]] = field(default_factory=dict)

    def news(self, run_id: str, known: Mapping[int, float]) -> Iterator[Statement]:
        """The statements that are newer than the `known` ones, and one for every client whose key is revoked."""
        self.known = known
        public = self.public()
        for client_id in self._named() if self.open and public is not None else ():
            said = self._newer(run_id, client_id)
            if said is not None:
                yield Statement(client_id=client_id, move=said.move, time=said.time)
        for client_id in sorted(public.revoked) if public is not None else ():
            yield Statement(client_id=client_id, move="revoked", time=known.get(client_id, 0.0))

    def gone(self, run_id: str, client_id: int) -> str:
        """Why a client of the open round need not be waited for; empty while it is a member."""
        public = self.public()
        if public is not None and client_id in public.revoked:
            return IS_REVOKED
        said = self._newer(run_id, client_id) if self.open and public is not None else None
        return HAS_LEFT if said is not None and said.move == "leave" else ""

    def _named(self) -> list[int]:
        """The clients of which a statement lies there."""
        with storage_errors(self.paths.root, "read"):
            found = [self.paths.name(text) for text in os.listdir(self.paths.root) if text.startswith("member_")]
        return sorted(name.client for name in found if name is not None and name.client is not None)

    def _newer(self, run_id: str, client_id: int) -> MemberFile | None:
        """The client's statement, if it is newer than the one that was taken; a new file is read once."""
        path = self.paths.member(client_id)
        found = identity(path)
        if found is None:
            self.quarantine.clear_for_file(path, run_id, 0, client_id)
            return None
        if self._read.get(client_id, ((), None))[0] != found:
            self._read[client_id] = found, self._checked(path, run_id, client_id)
        said = self._read[client_id][1]
        return said if said is not None and said.time > self.known.get(client_id, -1.0) else None

    def _checked(self, path: Path, run_id: str, client_id: int) -> MemberFile | None:
        """The statement; None, and refused, where it is not this client's for this run."""
        try:
            said = parse(read_bounded(path, MAX_JSON_BYTES), MemberFile, path.name)
            if (said.run_id, said.client_id) != (run_id, client_id):
                raise UpdateRejected("the statement is of another run or client")
            public = self.public()
            if public is None or (doubt := said.doubt(client_id, public)):
                raise UpdateRejected(doubt if public is not None else "there are no keys")
        except UpdateRejected as error:
            self.quarantine.refuse([path], str(error), run_id, 0, client_id)
            return None
        return said
