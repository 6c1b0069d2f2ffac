"""`SiteLog`: what the ServerApp knows of its sites, in a small file beside the run's records."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fccl.errors import UpdateRejected
from fccl.records.sites import CarriedRound, SiteRecord, SitesRecord
from fccl.storage.files import write_bytes
from fccl.storage.reading import parse, read_bounded

_MOST_BYTES = 2**24
_EVERY_S = 5.0  # between two writings of the same state


@dataclass
class SiteLog:
    """Counts the bytes that are carried, and writes them with the state of every site. Several threads may share one.

    A server that starts again goes on counting where the file of the same run ends.
    """

    path: Path
    clients: int
    clock: Callable[[], float] = time.time
    _run_id: str = ""
    _sites: dict[int, SiteRecord] = field(default_factory=dict)
    _rounds: dict[int, CarriedRound] = field(default_factory=dict)
    _written: SitesRecord | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, run_id: str) -> None:
        """Count for this run: from nothing, or from what its file says already."""
        with self._lock:
            if run_id != self._run_id:
                found = self._found(run_id)
                self._run_id, self._written = run_id, found
                self._sites = {each.client_id: each for each in found.sites} if found else {}
                self._rounds = {each.round: each for each in found.rounds} if found else {}

    def carried(self, client_id: int, number: int, down: int = 0, up: int = 0) -> None:
        """Count bytes to a site, or from it, in a round."""
        with self._lock:
            site = self._site(client_id)
            self._sites[client_id] = site.model_copy(update={"down": site.down + down, "up": site.up + up})
            whole = self._rounds.get(number, CarriedRound(round=number))
            self._rounds[number] = whole.model_copy(update={"down": whole.down + down, "up": whole.up + up})

    def look(self, seen: Mapping[int, float], online: frozenset[int], given_up: Callable[[int], str]) -> None:
        """Write the file if something else than the time is new, or it is old. Raises `StorageError`.

        `seen` is when each client's site was last online; `given_up` the reason why it is not waited for.
        """
        with self._lock:
            if not self._run_id:
                return
            for client_id in range(self.clients):
                self._sites[client_id] = self._site(client_id).model_copy(
                    update={
                        "online": client_id in online,
                        "seen": seen.get(client_id, self._site(client_id).seen),
                        "given_up": given_up(client_id)[:1000],
                    }
                )
            self._write()

    def _write(self) -> None:
        now = SitesRecord(run_id=self._run_id, time=self.clock(), sites=self._in_order(), rounds=self._rounds_now())
        if self._written is None or _news(now) != _news(self._written) or now.time - self._written.time >= _EVERY_S:
            write_bytes(self.path, f"{now.model_dump_json()}\n".encode())
            self._written = now

    def _in_order(self) -> tuple[SiteRecord, ...]:
        return tuple(self._sites[client_id] for client_id in sorted(self._sites))

    def _rounds_now(self) -> tuple[CarriedRound, ...]:
        return tuple(self._rounds[number] for number in sorted(self._rounds))

    def _site(self, client_id: int) -> SiteRecord:
        return self._sites.get(client_id, SiteRecord(client_id=client_id))

    def _found(self, run_id: str) -> SitesRecord | None:
        """The file of an earlier server of the same run; a file that is not one is written anew."""
        with suppress(UpdateRejected):
            found = parse(read_bounded(self.path, _MOST_BYTES), SitesRecord, self.path.name)
            return found if found.run_id == run_id else None
        return None


def _news(said: SitesRecord) -> object:
    """The record without its times, which change all the time."""
    return said.rounds, tuple(each.model_copy(update={"seen": None}) for each in said.sites)
