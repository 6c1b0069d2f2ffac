"""`Errand`: what is carried to the sites now, as it lies in the server's directory, and what they bring back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fccl.adapters.short import is_drawn
from fccl.display.plain_text import printable
from fccl.errors import UpdateRejected
from fccl.messages import Request
from fccl.paths import ExchangePaths
from fccl.specs import ExchangeSpec, Phase
from fccl.storage.files import write_bytes
from fccl.storage.reading import identity, parse, read_bounded
from fccl.transports.exchange.wire import MAX_ADAPTER_BYTES, MAX_TASK_BYTES, RequestFile, TaskFile
from fccl.transports.flower.contents import MOST_DRAWN_BYTES, Content, is_adapter
from fccl.transports.flower.parcel import MOST_S, Parcel
from fccl.transports.flower.site import speaking

_NOTHING: Mapping[str, Content] = {}
_MOST_REFUSALS = (
    3  # so often may a client's answer be refused in an attempt: `exchange/collect.py` passes over the next
)


@dataclass(frozen=True, eq=False)
class Errand:
    """The files of one open round or request for each of these clients, and the files that they answer with.

    `kind` is `done` for the end of the run: it awaits no answer. An answer that the server takes away again was
    refused, or is to be tried again. Then the client is sent the files once more, with the hashes of its answers.
    """

    paths: ExchangePaths
    spec: ExchangeSpec
    run_id: str
    round: int
    phase: Phase
    kind: str
    step: int
    client_ids: tuple[int, ...]
    counts_late: bool = False  # an answer that comes after the round is closed counts in the next
    brought: dict[int, list[str]] = field(default_factory=dict)  # by client: SHA-256 of the answers brought so far
    whole: set[int] = field(default_factory=set)  # clients whose sites could not do with less: no more is left out

    @classmethod
    def of(
        cls,
        paths: ExchangePaths,
        spec: ExchangeSpec,
        request: Request[Any],
        client_ids: tuple[int, ...],
        counts_late: bool = False,
    ) -> Errand:
        """The errand of a request."""
        about = request.run_id, request.round, request.phase, request.kind, request.step
        return cls(paths, spec, *about, client_ids, counts_late)

    @property
    def wait_s(self) -> float:
        """So long a site waits for its worker: where late answers count, also while the next round is open."""
        return min(MOST_S, self.spec.timeout_s * (2 * (self.spec.retries + 1) if self.counts_late else 1))

    def waits_for(self, client_id: int) -> bool:
        """Whether this client is to be sent the files, or sent them again."""
        if self.kind == "done":
            return client_id not in self.brought
        so_far = self.brought.get(client_id, ())
        return identity(self._commits(client_id)) is None and len(so_far) < _MOST_REFUSALS * (self.spec.retries + 1)

    def parcel(self, client_id: int, known: Mapping[str, Content] = _NOTHING) -> Parcel | None:
        """The files for one client, whose site has the `known` ones; None while the server is still writing them."""
        try:
            named = self._of_request() if self._is_served else self._of_round(client_id)
            if named is None:
                return None
            files = {path.name: bytes(read_bounded(path, MAX_ADAPTER_BYTES)) for path in named}
        except UpdateRejected:  # one of them is just written anew
            return None
        files, held = self._packed(files, None if client_id in self.whole else known)
        if self.kind == "done":
            return Parcel(files, held=held)
        refused = tuple(self.brought.get(client_id, ()))
        return Parcel(files, self._commits(client_id).name, refused, self.wait_s, self.spec.stale_s, held=held)

    def take(self, client_id: int, answer: Parcel) -> None:
        """Write a client's answer into the server's directory, the file that commits it last.

        What is in the files is the exchange directory's to judge. Raises `UpdateRejected` for files that are not this
        client's answer to this errand.
        """
        if self.kind == "done":
            self.brought[client_id] = []
            return
        commits = self._commits(client_id)
        self._require_own(client_id, answer.files, commits)
        spoken = answer.files.get(speaking(self.paths, commits.name), b"")
        self.brought.setdefault(client_id, []).append(hashlib.sha256(spoken).hexdigest())
        for name in sorted(answer.files, key=lambda name: name == commits.name):
            write_bytes(self.paths.root / name, answer.files[name])

    @property
    def _is_served(self) -> bool:
        return self.kind not in ("fit", "done")

    def _commits(self, client_id: int) -> Path:
        if self._is_served:
            return self.paths.reply(client_id, self.round, self.kind, self.step)
        return self.paths.flag(client_id, self.round)

    def _packed(
        self, files: Mapping[str, bytes], known: Mapping[str, Content] | None
    ) -> tuple[dict[str, bytes], dict[str, Content]]:
        """The files that travel, and those that are left out: none where nothing may be known."""
        coded, whole = self.paths.coded_global(self.round).name, self.paths.global_adapter(self.round).name
        given = {text: each for text, each in files.items() if text != coded}
        if known is None:
            return given, {}
        held, had = {}, set(known.values())
        for text in [text for text in given if is_adapter(self.paths, text)]:
            content = Content.of(given[text])
            if content in had:
                held[text] = content
            elif text == whole and coded in files and self._is_read(files[coded], content.length, known):
                held[text] = content
                given = {coded: files[coded], **given}
            had.add(content)
        return {text: each for text, each in given.items() if text not in held}, held

    def _is_read(self, coded: bytes, length: int, known: Mapping[str, Content]) -> bool:
        """Whether a site that has these can make the round's adapter of its few bytes."""
        if is_drawn(coded):
            return len(coded) < length <= MOST_DRAWN_BYTES
        return len(coded) < length and self.paths.global_adapter(self.round - 1).name in known

    def _of_round(self, client_id: int) -> list[Path] | None:
        phase = self.paths.phase(self.round)
        if identity(phase) is None:
            return None
        path = self.paths.task(self.round)
        task = parse(read_bounded(path, MAX_TASK_BYTES), TaskFile, path.name)
        if (task.run_id, task.phase) != (self.run_id, "done" if self.kind == "done" else self.phase):
            return None
        named = [self.paths.global_adapter(self.round)]
        if task.work is not None:
            if client_id not in task.work.clients:
                return None
            if task.work.coded is not None:
                named.append(self.paths.coded_global(self.round))
            if task.work.reference is not None:
                named.append(self.paths.reference(task.work.reference.sha256))
            if (told := task.work.correction_of(client_id)) is not None:
                named.append(self.paths.correction(told.sha256))
        return [*named, path, phase]

    def _of_request(self) -> list[Path] | None:
        path = self.paths.request
        if identity(path) is None:
            return None
        said = parse(read_bounded(path, MAX_TASK_BYTES), RequestFile, path.name)
        if (said.run_id, said.round, said.kind, said.step) != (self.run_id, self.round, self.kind, self.step):
            return None
        return [*{self.paths.adapter(file.sha256): None for file in said.adapters.values()}, path]

    def _require_own(self, client_id: int, files: Mapping[str, bytes], commits: Path) -> None:
        allowed = {commits.name, self.paths.status(client_id).name}
        if not self._is_served:
            allowed |= {path.name for path in self.paths.of_answer(client_id, self.round)}
        if commits.name not in files or set(files) - allowed:
            raise UpdateRejected(f"the answer has files {printable(str(sorted(files)), 300)}")
