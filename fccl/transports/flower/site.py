"""`Site`: the end of the line. It lays the server's files into the site's own exchange directory, where the site's
worker sees them as it would see any server's, and takes the worker's answer out. Loads no Flower, and torch only
where a round's adapter comes in few bytes.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fccl.display.plain_text import printable
from fccl.errors import UpdateRejected
from fccl.paths import ExchangeName, ExchangePaths
from fccl.storage.files import storage_errors, write_bytes
from fccl.storage.reading import NotJson, identity, json_value, read_bounded
from fccl.transports.exchange.watch import ring, watcher
from fccl.transports.flower.contents import Content, is_adapter, stays
from fccl.transports.flower.filling import MOST_BYTES, filled

OF_SERVER = frozenset({"phase", "global_adapter", "task", "reference", "correction", "request", "adapter"})
OF_CLIENT = frozenset({"update", "control", "contribution", "flag", "reply"})
_FIRST_TO_GO = ("phase", "request")  # what commits other files
_NONE: Mapping[str, Content] = {}
_COMMITTING = ("done_", "reply_")
_LOOK_S = 1.0  # the longest wait without a look at the worker's heartbeat


class NoAnswer(Exception):
    """The site has no answer; the message says why, in words for the server's record."""


@dataclass(frozen=True)
class Site:
    """One site: the exchange directory that its worker, `fccl client`, watches."""

    paths: ExchangePaths
    client_id: int

    def lay(
        self,
        files: Mapping[str, bytes],
        answer: str = "",
        refused: Iterable[str] = (),
        held: Mapping[str, Content] = _NONE,
    ) -> tuple[str, ...]:
        """Make the server's files in the directory exactly these, in their order, and wake the worker. `held` are more
        of them, without their bytes: the directory has those. Returns the names of such files that it has not; then
        nothing was touched.

        What is there already stays untouched, and so does the answer to it, but one that was refused. So the same files
        can be laid again at any time: after a restart, or twice. A request leaves the adapters of the last round where
        they are. Raises `UpdateRejected` for a name that no server writes, `StorageError` for the disk.
        """
        for text in files:
            self._require_kind(text, OF_SERVER)
        for text in held:
            if not is_adapter(self.paths, text):
                raise UpdateRejected(f"{printable(text, 100)!r} is not a file that may be left out")
        files, missing = filled(self.paths, files, held)
        if missing:
            return missing
        with storage_errors(self.paths.root):
            self.paths.root.mkdir(parents=True, exist_ok=True)
        new = [text for text, content in files.items() if not self._holds(text, content)]
        self._clear(files, answer, any(text == self.paths.request.name for text in new))
        self._take_back(answer, refused)
        for text in _committing(self.paths, new):
            self._remove(text)
        for text in new:
            write_bytes(self.paths.root / text, files[text])
        ring(self.paths.bell)
        return ()

    def begin(self, run_id: str) -> None:
        """Forget every other run: a worker that starts would take its end for this one's. Raises `StorageError`."""
        if not self.paths.root.is_dir():
            return
        with storage_errors(self.paths.root, "read"):
            names = [text for text in os.listdir(self.paths.root) if self._speaks_of_a_run(text)]
        if names and not any(_fields(self._content(text)).get("run_id") == run_id for text in names):
            self.lay({})

    def wait(self, files: Mapping[str, bytes], answer: str, wait_s: float, stale_s: float) -> dict[str, bytes]:
        """The worker's answer to these files, the one that commits it last.

        Raises `NoAnswer` when the worker is not at work or time is up, `StorageError` for the disk.
        """
        end, pulse = time.monotonic() + wait_s, _Pulse(self.paths.status(self.client_id))
        with watcher(self.paths.root, "auto", _COMMITTING) as watching:
            while (found := self.answer(files, answer)) is None:
                if pulse.silent_s() > stale_s:
                    raise NoAnswer(f"no worker of client {self.client_id} has been at work there for {stale_s:g} s")
                if time.monotonic() > end:
                    raise NoAnswer(f"its worker has not answered within {wait_s:g} s")
                watching.wait(min(_LOOK_S, stale_s / 4))
        return found

    def answer(self, files: Mapping[str, bytes], answer: str) -> dict[str, bytes] | None:
        """The answer to these files, if it is committed. The worker's heartbeat comes with it."""
        if identity(self.paths.root / answer) is None or not self._is_to(files, answer):
            return None
        names = [self.paths.status(self.client_id).name, *self._names(answer)]
        with suppress(UpdateRejected):  # the worker is just writing it anew
            found = {text: bytes(self._read(text)) for text in names if identity(self.paths.root / text)}
            return found if answer in found else None
        return None

    def require_own(self, answer: str) -> None:
        """Raises `UpdateRejected` unless this names a file by which this client commits an answer."""
        name = self._require_kind(answer, frozenset({"flag", "reply"}))
        if name.client != self.client_id:
            raise UpdateRejected(f"{printable(answer, 100)} is not client {self.client_id}'s")

    def _is_to(self, files: Mapping[str, bytes], answer: str) -> bool:
        """Whether an update was trained for these files' task. A reply to another request is never there: `lay`
        removes it."""
        name = self._require_kind(answer, OF_CLIENT)
        if name.kind == "reply" or name.round is None:
            return True
        task = _fields(files.get(self.paths.task(name.round).name, b""))
        with suppress(UpdateRejected):
            said = _fields(self._read(self.paths.contribution(self.client_id, name.round).name))
            asked = (task.get("run_id"), task.get("round"), (task.get("adapter") or {}).get("sha256"))
            return (said.get("run_id"), said.get("round"), said.get("base_sha256")) == asked
        return False

    def _speaks_of_a_run(self, text: str) -> bool:
        name = self.paths.name(text)
        return name is not None and name.kind in ("task", "request")

    def _content(self, text: str) -> bytearray:
        """The content of a file, or none where it cannot be read."""
        try:
            return self._read(text)
        except UpdateRejected:
            return bytearray()

    def _clear(self, files: Mapping[str, bytes], answer: str, other_request: bool) -> None:
        """Remove what the server no longer has, and answers to it; one to another request goes with the request."""
        keep = {*files, *(self._names(answer) if answer and not other_request else ())}
        with storage_errors(self.paths.root, "read"):
            names = [(text, name) for text in sorted(os.listdir(self.paths.root)) if (name := self.paths.name(text))]
        there = [(text, name) for text, name in names if not stays(self.paths, name, files)]
        gone = [(text, name) for text, name in there if text not in keep and self._is_cleared(name)]
        for text, _ in sorted(gone, key=lambda each: (each[1].kind not in _FIRST_TO_GO, each[1].kind == "flag")):
            self._remove(text)

    def _is_cleared(self, name: ExchangeName) -> bool:
        return name.kind in OF_SERVER or (name.kind in OF_CLIENT and name.client == self.client_id)

    def _take_back(self, answer: str, refused: Iterable[str]) -> None:
        """Remove an answer that was refused, so that the worker answers anew; the file that commits it goes last."""
        spoken = speaking(self.paths, answer) if answer else ""
        if not spoken or identity(self.paths.root / spoken) is None:
            return
        with suppress(UpdateRejected):
            if _sha256(self._read(spoken)) in set(refused):
                for text in self._names(answer):
                    self._remove(text)

    def _names(self, answer: str) -> tuple[str, ...]:
        """The files of an answer, the one that commits it last."""
        name = self.paths.name(answer)
        if name is None or name.kind == "reply" or name.round is None:
            return (answer,)
        return tuple(path.name for path in self.paths.of_answer(self.client_id, name.round))

    def _require_kind(self, text: str, kinds: frozenset[str]) -> ExchangeName:
        name = self.paths.name(text)
        if name is None or name.kind not in kinds:
            raise UpdateRejected(f"{printable(text, 100)!r} is not a file that belongs there")
        return name

    def _holds(self, text: str, content: bytes) -> bool:
        try:
            return read_bounded(self.paths.root / text, len(content)) == content
        except UpdateRejected:
            return False

    def _read(self, text: str) -> bytearray:
        return read_bounded(self.paths.root / text, MOST_BYTES)

    def _remove(self, text: str) -> None:
        path = self.paths.root / text
        with storage_errors(path, "remove"):
            path.unlink(missing_ok=True)


def speaking(paths: ExchangePaths, answer: str) -> str:
    """The file of an answer that says what the answer is: a contribution, or the reply itself.

    Two answers differ exactly when these do.
    """
    name = paths.name(answer)
    if name is None or name.kind != "flag" or name.client is None or name.round is None:
        return answer
    return paths.contribution(name.client, name.round).name


class _Pulse:
    """The worker's heartbeat, by this process's clock."""

    def __init__(self, path: Path) -> None:
        self._path, self._last, self._since = path, identity(path), time.monotonic()

    def silent_s(self) -> float:
        """Seconds since it last changed."""
        if (now := identity(self._path)) != self._last:
            self._last, self._since = now, time.monotonic()
        return time.monotonic() - self._since


def _committing(paths: ExchangePaths, names: Iterable[str]) -> Iterable[str]:
    return (text for text in names if (name := paths.name(text)) is not None and name.kind in _FIRST_TO_GO)


def _fields(content: bytes | bytearray) -> dict[str, Any]:
    with suppress(NotJson):
        if isinstance(found := json_value(bytearray(content)), dict):
            return found
    return {}


def _sha256(content: bytes | bytearray) -> str:
    return hashlib.sha256(content).hexdigest()
