"""The clients that live: those whose heartbeat files change, measured with the server's own clock."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field

from fccl.errors import UpdateRejected
from fccl.messages import StatusListener
from fccl.paths import ExchangePaths
from fccl.records.run import ClientStatus
from fccl.storage.reading import parse, read_bounded
from fccl.transports.exchange.wire import MAX_JSON_BYTES


@dataclass
class _Heard:
    file: tuple[int, int] | None = None  # inode and time of change, as last seen
    since: float = 0.0  # when that was first seen, on the monotonic clock
    status: ClientStatus | None = None


@dataclass
class Liveness:
    """The heartbeats of the clients that the server waits for.

    A client that has never written a heartbeat of this program cannot be judged by it: it may not have begun, or know
    only the original files.
    """

    paths: ExchangePaths
    stale_s: float
    on_status: StatusListener
    _clients: dict[int, _Heard] = field(default_factory=dict)

    def look(self, client_id: int) -> None:
        """Take a new heartbeat, if there is one."""
        heard = self._clients.setdefault(client_id, _Heard(since=time.monotonic()))
        path = self.paths.status(client_id)
        with suppress(OSError, UpdateRejected):
            found = os.lstat(path)
            if (found.st_ino, found.st_mtime_ns) == heard.file:
                return
            heard.file, heard.since, heard.status = (found.st_ino, found.st_mtime_ns), time.monotonic(), None
            status = parse(read_bounded(path, MAX_JSON_BYTES), ClientStatus, path.name)
            if status.client_id == client_id:
                heard.status = status
                self.on_status(status)

    def is_dead(self, client_id: int) -> bool:
        """Whether the client used to write heartbeats and has stopped."""
        heard = self._clients.get(client_id)
        return heard is not None and heard.status is not None and time.monotonic() - heard.since > self.stale_s

    def forgive(self) -> None:
        """Count every silence from now on."""
        for heard in self._clients.values():
            heard.since = time.monotonic()

    def last_word(self, client_id: int) -> str:
        """The client's last heartbeat in words, for a reason."""
        heard = self._clients.get(client_id)
        if heard is None or heard.status is None:
            return "it was never seen"
        status = heard.status
        where = f" round {status.round} step {status.step} of {status.steps}" if status.state == "training" else ""
        return f"it was last seen {status.state}{where}"
