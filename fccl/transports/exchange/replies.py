"""The client's side of requests of other kinds than `fit`: read `request.json`, reply in one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fccl.adapters.adapter import Adapter, adapter_from_bytes
from fccl.display.plain_text import printable
from fccl.errors import AdapterError, UpdateRejected
from fccl.keys import Keys
from fccl.messages import ClientFailure, Reply, ServedRequest, StatusListener, Worker
from fccl.paths import ExchangePaths
from fccl.storage.reading import identity, parse, read_bounded
from fccl.transports.exchange.answers import read_named
from fccl.transports.exchange.memory import Memory
from fccl.transports.exchange.quarantine import Quarantine
from fccl.transports.exchange.wire import MAX_JSON_BYTES, MAX_REASON, MAX_TASK_BYTES, VERSION, ReplyFile, RequestFile


class Runs(Protocol):
    """The runs that a client has worked for."""

    def remember(self, run_id: str) -> None:
        """Note the run that the client works for now."""
        ...

    def require_not_left(self, run_id: str) -> None:
        """Raises `UpdateRejected` for a run that the client has gone on from."""
        ...


@dataclass
class Replies:
    """One client's replies. `complain` gets a line, once, for whatever is wrong with a request."""

    paths: ExchangePaths
    client_id: int
    worker: Worker
    keys: Keys | None
    memory: Memory | None
    complain: Callable[[str], None]
    _failed: str = ""  # the hash of the request that this process has answered with a failure

    def look(self, runs: Runs, hear: StatusListener) -> ReplyFile | None:
        """Reply to the open request, if it asks this client and has no reply of its yet. Returns the reply.

        Raises `StorageError`.
        """
        found = identity(self.paths.request)
        if found is None:
            return None
        try:
            file = self._read(runs)
            runs.remember(file.run_id)
            if self.client_id not in file.clients or self._is_answered(file):
                return None
            adapters = self._adapters(file)
        except (UpdateRejected, AdapterError) as error:
            if identity(self.paths.request) == found:  # else the server has taken it away meanwhile
                self.complain(f"the request is not believed: {error}")
            return None
        answer = self._answer(file, adapters, hear)
        return self._commit(file, answer) if identity(self.paths.request) == found else None

    def _read(self, runs: Runs) -> RequestFile:
        """Raises `UpdateRejected` when the server has not signed it, or it is of a run or a round that is over."""
        file = parse(read_bounded(self.paths.request, MAX_TASK_BYTES), RequestFile, self.paths.request.name)
        if self.keys is not None and not file.is_of_server(self.keys.public):
            raise UpdateRejected("the server has not signed it")
        if self.memory is not None:
            self.memory.require_not_older(file)
        runs.require_not_left(file.run_id)
        return file

    def _adapters(self, file: RequestFile) -> dict[str, Adapter]:
        """The adapters that the request names. Raises `UpdateRejected` or `AdapterError`."""
        paths = {role: self.paths.adapter(named.sha256) for role, named in file.adapters.items()}
        return {
            role: adapter_from_bytes(read_named(paths[role], named, "the request"), paths[role].name)
            for role, named in file.adapters.items()
        }

    def _answer(
        self, file: RequestFile, adapters: Mapping[str, Adapter], hear: StatusListener
    ) -> Reply | ClientFailure:
        """Terms that the service of this kind cannot read, and a kind without a service, are a failure too."""
        try:
            service = self.worker.service(file.kind, file.step)
            request: ServedRequest[Reply] = service.asked.from_terms(file.terms, adapters)
            if (request.run_id, request.round) != (file.run_id, file.round):
                raise UpdateRejected("the terms of the request are of another run or round")
        except UpdateRejected as error:
            return ClientFailure(self.client_id, str(error))
        return self.worker.answer(request, self.client_id, hear)

    def _commit(self, file: RequestFile, answer: Reply | ClientFailure) -> ReplyFile:
        said = self._reply(file, answer)
        if self.memory is not None:
            self.memory.note(file)
        path, content = self._path(file), said.written()
        Quarantine(self.paths).write(path, content, file.run_id, file.round, self.client_id)
        self._failed = file.content_sha256 if said.error else ""
        return said

    def _reply(self, file: RequestFile, answer: Reply | ClientFailure) -> ReplyFile:
        """The content of the reply; one that is too long for the server becomes a failure."""
        said = (
            {"error": printable(answer.reason, MAX_REASON) or "unknown"}
            if isinstance(answer, ClientFailure)
            else {"reply": answer.model_dump(mode="json")}
        )
        reply = ReplyFile.model_validate(
            {
                "version": VERSION,
                "run_id": file.run_id,
                "round": file.round,
                "client_id": self.client_id,
                "kind": file.kind,
                "step": file.step,
                "request_sha256": file.content_sha256,
            }
            | said
        ).signed(self.keys)
        if (length := len(reply.written())) > MAX_JSON_BYTES:
            too_long = f"the reply has {length:,} bytes, at most {MAX_JSON_BYTES:,} are read"
            return self._reply(file, ClientFailure(self.client_id, too_long))
        return reply

    def _path(self, file: RequestFile) -> Path:
        return self.paths.reply(self.client_id, file.round, file.kind, file.step)

    def _is_answered(self, file: RequestFile) -> bool:
        """A failure counts for the process that it befell: started again, it tries again."""
        path = self._path(file)
        if identity(path) is None:
            return False
        try:
            said = parse(read_bounded(path, MAX_JSON_BYTES), ReplyFile, path.name)
        except UpdateRejected:
            return False
        mine = said.request_sha256 == file.content_sha256
        return mine and (said.reply is not None or self._failed == file.content_sha256)
