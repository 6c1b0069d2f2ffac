"""`Errand`: what is carried to the sites now, as it lies in the server's directory, and what they bring back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fccl.display.plain_text import printable
from fccl.errors import UpdateRejected
from fccl.messages import Request
from fccl.paths import ExchangePaths
from fccl.specs import ExchangeSpec, Phase
from fccl.storage.files import write_bytes
from fccl.storage.reading import identity, parse, read_bounded
from fccl.transports.exchange.wire import MAX_ADAPTER_BYTES, MAX_TASK_BYTES, RequestFile, TaskFile
from fccl.transports.flower.parcel import MOST_S, Parcel
from fccl.transports.flower.site import speaking

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

    def parcel(self, client_id: int) -> Parcel | None:
        """The files for one client; None while the server is still writing them."""
        try:
            named = self._of_request() if self._is_served else self._of_round(client_id)
            if named is None:
                return None
            files = {path.name: bytes(read_bounded(path, MAX_ADAPTER_BYTES)) for path in named}
        except UpdateRejected:  # one of them is just written anew
            return None
        if self.kind == "done":
            return Parcel(files)
        refused = tuple(self.brought.get(client_id, ()))
        return Parcel(files, self._commits(client_id).name, refused, self.wait_s, self.spec.stale_s)

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
