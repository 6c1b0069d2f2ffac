"""The server's side of requests of other kinds than `fit`: `request.json` opens one, replies come as one file each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Self

from fccl.display.plain_text import printable
from fccl.errors import FederationError, ForeignAnswer, UpdateRejected
from fccl.keys import PublicKeys
from fccl.messages import ClientFailure, ReplyType, ServedRequest, read_terms
from fccl.paths import ExchangePaths
from fccl.storage.reading import identity, is_there, parse, read_bounded
from fccl.transports.exchange.rounds import Rounds
from fccl.transports.exchange.wire import MAX_JSON_BYTES, MAX_TASK_BYTES, VERSION, ReplyFile, RequestFile


@dataclass(frozen=True)
class OpenRequest(Generic[ReplyType]):
    """A request that lies in the directory, and its replies."""

    request: ServedRequest[ReplyType]
    file: RequestFile
    rounds: Rounds
    _written: dict[Path, tuple[int, int, int] | None] = field(default_factory=dict)

    @classmethod
    def publish(cls, request: ServedRequest[ReplyType], client_ids: Sequence[int], rounds: Rounds) -> Self:
        """Write the adapters that the request speaks of, then `request.json`, then wake the clients.

        Replies to this very request that are there already count; those to another of the same name are removed.
        Raises `StorageError`, and `FederationError` when it is too long.
        """
        file = RequestFile(
            version=VERSION,
            run_id=request.run_id,
            run_created=rounds.run_created,
            round=request.round,
            kind=request.kind,
            step=request.step,
            clients=tuple(client_ids),
            terms=request.terms(),
            adapters={role: rounds.keep(each, rounds.paths.adapter) for role, each in request.adapters().items()},
        ).signed(rounds.keys)
        opened = cls(request, file, rounds)
        opened._require_short()
        for client_id in client_ids:
            opened._remove_reply_to_another(client_id)
        opened._write()
        return opened

    @property
    def run_id(self) -> str:
        """The run of the request."""
        return self.file.run_id

    @property
    def round(self) -> int:
        """The round that it belongs to."""
        return self.file.round

    def flag(self, client_id: int) -> Path:
        """A reply is one file, so it commits itself."""
        return self._paths.reply(client_id, self.round, self.file.kind, self.file.step)

    def files(self, client_id: int) -> tuple[Path, ...]:
        """The reply."""
        return (self.flag(client_id),)

    def read(self, client_id: int) -> ReplyType | ClientFailure:
        """A client's reply, or the failure that it reports. Raises `UpdateRejected`, and `ForeignAnswer` when it is not
        the client's to this request."""
        path = self.flag(client_id)
        said = parse(read_bounded(path, MAX_JSON_BYTES), ReplyFile, path.name)
        self._require_answers(said, client_id)
        if said.reply is None:
            return ClientFailure(client_id, printable(said.error))
        reply = read_terms(said.reply, self.request.answered_by, path.name)
        if reply.client_id != client_id:
            raise UpdateRejected(f"the reply speaks for client {reply.client_id}")
        return reply

    def uphold(self) -> None:
        """Write `request.json` and its adapters again if they are not those that were written."""
        if any(identity(path) != known for path, known in self._written.items()):
            for adapter in self.request.adapters().values():
                self.rounds.keep(adapter, self._paths.adapter)
            self._write()

    def close(self) -> None:
        """Take `request.json` away: nobody is to answer any more. Replies stay until their round is pruned."""
        self.rounds.close_request()

    @property
    def _paths(self) -> ExchangePaths:
        return self.rounds.paths

    @property
    def _public(self) -> PublicKeys | None:
        return self.rounds.keys.current() if self.rounds.keys else None

    def _require_answers(self, said: ReplyFile, client_id: int) -> None:
        asked = {"run_id": self.run_id, "round": self.round, "kind": self.file.kind, "step": self.file.step}
        for name, expected in (asked | {"client_id": client_id}).items():
            if (value := getattr(said, name)) != expected:
                raise ForeignAnswer(printable(f"the reply is of {name} {value!r}, asked was {expected!r}"))
        if said.request_sha256 != self.file.content_sha256:
            raise ForeignAnswer("the reply is to another request")
        if self._public is not None and (doubt := said.doubt(client_id, self._public)):
            raise ForeignAnswer(doubt)

    def _require_short(self) -> None:
        if (length := len(self.file.written())) > MAX_TASK_BYTES:
            what = f"the request of kind {self.file.kind} has {length:,} bytes, at most {MAX_TASK_BYTES:,} are read"
            raise FederationError(what, hint="ask fewer clients at once", resumable=False)

    def _remove_reply_to_another(self, client_id: int) -> None:
        path = self.flag(client_id)
        if not is_there(path):
            return
        try:
            self._require_answers(parse(read_bounded(path, MAX_JSON_BYTES), ReplyFile, path.name), client_id)
        except UpdateRejected:
            self.rounds.quarantine.remove(path, self.run_id)

    def _write(self) -> None:
        self.rounds.write_request(self.file)
        named = {self._paths.adapter(file.sha256) for file in self.file.adapters.values()}
        self._written.update({path: identity(path) for path in {self._paths.request, *named}})
