"""A client's heartbeat:

`status_i.json`, replaced every few seconds by a thread of its own, so that a long step is no silence.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from types import TracebackType
from typing import Literal, Self

from fccl.errors import StorageError
from fccl.paths import ExchangePaths
from fccl.records.run import ClientStatus
from fccl.transports.exchange.quarantine import Quarantine


class Heartbeat:
    """Beats from `__enter__` to `__exit__`. `tell` what to say; a change of state or round is said at once."""

    def __init__(self, paths: ExchangePaths, client_id: int, every_s: float) -> None:
        self._path, self._every_s, self._folder = paths.status(client_id), every_s, Quarantine(paths)
        self._status = ClientStatus(
            client_id=client_id,
            state="idle",
            run_id="",
            round=0,
            phase="sft",
            pid=os.getpid(),
            host=socket.gethostname(),
        )
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)
        self._error: StorageError | None = None

    def __enter__(self) -> Self:
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def tell(self, status: ClientStatus) -> None:
        """Tell what the client is doing now. Raises `StorageError` when this or an earlier beat could not be
        written.
        """
        news = (status.state, status.run_id, status.round) != (
            self._status.state,
            self._status.run_id,
            self._status.round,
        )
        self._status = status
        if news:
            self._write()
        self.check()

    def turn(self, state: Literal["idle", "done", "failed"]) -> None:
        """Say that the training is over, or that there is nothing to do. Raises as `tell` does."""
        self.tell(self._status.model_copy(update={"state": state}))

    def check(self) -> None:
        """Raises the `StorageError` that ended the beating, if one did."""
        if self._error is not None:
            raise self._error

    def _beat_on(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self._write()
            except StorageError as error:
                self._error = error
                return

    def _write(self) -> None:
        with self._lock:
            status = self._status.model_copy(update={"time": time.time()})
            self._folder.write(
                self._path, f"{status.model_dump_json()}\n".encode(), status.run_id, status.round, status.client_id
            )
