"""Which clients live: by whether their heartbeat files change, measured with the server's own clock."""

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
class _Pulse:
    file: tuple[int, int] | None = None  # inode and time of change, as last seen
    since: float = 0.0  # when that was first seen, on the monotonic clock
    status: ClientStatus | None = None


@dataclass
class Pulses:
    """The heartbeats of the clients that the server waits for.

    A client that has never written a heartbeat of this program cannot be judged by it: it may not have begun, or know
    only the original files.
    """

    paths: ExchangePaths
    stale_s: float
    on_status: StatusListener
    _pulses: dict[int, _Pulse] = field(default_factory=dict)

    def look(self, client_id: int) -> None:
        """Take a new heartbeat, if there is one."""
        pulse = self._pulses.setdefault(client_id, _Pulse(since=time.monotonic()))
        path = self.paths.status(client_id)
        with suppress(OSError, UpdateRejected):
            found = os.lstat(path)
            if (found.st_ino, found.st_mtime_ns) == pulse.file:
                return
            pulse.file, pulse.since, pulse.status = (found.st_ino, found.st_mtime_ns), time.monotonic(), None
            status = parse(read_bounded(path, MAX_JSON_BYTES), ClientStatus, path.name)
            if status.client_id == client_id:
                pulse.status = status
                self.on_status(status)

    def is_dead(self, client_id: int) -> bool:
        """Whether the client used to write heartbeats and has stopped."""
        pulse = self._pulses.get(client_id)
        return pulse is not None and pulse.status is not None and time.monotonic() - pulse.since > self.stale_s

    def forgive(self) -> None:
        """Count every silence from now on."""
        for pulse in self._pulses.values():
            pulse.since = time.monotonic()

    def last_word(self, client_id: int) -> str:
        """What the client was last heard to do, for a reason."""
        pulse = self._pulses.get(client_id)
        if pulse is None or pulse.status is None:
            return "it was never seen"
        status = pulse.status
        where = f" round {status.round} step {status.step} of {status.steps}" if status.state == "training" else ""
        return f"it was last seen {status.state}{where}"
