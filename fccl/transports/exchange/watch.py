"""Waiting for somebody else's file: notified where the file system tells (watchfiles), by looking now and then where it
does not.

A notification only ends the waiting earlier. Whoever waits looks at the directory itself afterwards, so a lost one
costs `RESCAN_S` at most.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from watchfiles._rust_notify import RustNotify

from fccl.storage.files import storage_errors
from fccl.storage.mounts import is_remote

RESCAN_S = 1.0  # the longest wait without a look when notifications work
POLL_S = 0.2  # when they do not
_SELF_TEST_S = 0.5
_QUICK_MS, _SLOW_MS = (
    2,
    50,
)  # between these the notifier looks for news, so that waiting costs nothing and lasts at most a tenth too long


class Watcher(Protocol):
    """Waits for a change in a folder."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def wait(self, timeout_s: float) -> None:
        """Return after a change, or after `timeout_s`, or earlier: look for yourself."""
        ...


def watcher(folder: Path, how: Literal["auto", "notify", "poll"]) -> Watcher:
    """`auto` takes notifications where a file written here is notified and nobody else's machine is behind the file
    system.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if how == "poll" or (how == "auto" and is_remote(folder)):
        return Polling()
    try:
        notified = Notified(folder)
    except (
        Exception
    ):  # watchfiles has an error of its own, OSError and more for one and the same: no notifications here
        return Polling()
    if how == "notify" or notified.works():
        return notified
    notified.close()
    return Polling()


class Polling:
    """Sleeps."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def wait(self, timeout_s: float) -> None:
        time.sleep(max(0.0, min(timeout_s, POLL_S)))


class Notified:
    """Wakes when the file system says that something changed in the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._last_news = folder, time.monotonic()
        self._notify = RustNotify([str(folder)], False, False, 0, False, True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._notify.close()

    def wait(self, timeout_s: float) -> None:
        end = time.monotonic() + min(timeout_s, RESCAN_S)
        while (left := end - time.monotonic()) > 0:
            quiet_s = time.monotonic() - self._last_news
            every_ms = min(max(_QUICK_MS, int(quiet_s * 100)), _SLOW_MS)
            if self._look(every_ms, min(left, max(quiet_s, 0.01))):
                self._last_news = time.monotonic()
                return

    def works(self) -> bool:
        """Whether a file written now is notified within a moment."""
        with storage_errors(self._folder):
            descriptor, probe = tempfile.mkstemp(dir=self._folder, prefix=".probe.", suffix=".tmp")
            os.close(descriptor)
        try:
            return self._look(_QUICK_MS, _SELF_TEST_S)
        finally:
            with suppress(OSError):
                os.unlink(probe)

    def _look(self, every_ms: int, timeout_s: float) -> bool:
        found = self._notify.watch(2 * every_ms, every_ms, max(1, int(timeout_s * 1000)), None)
        if found == "signal":  # the notifier swallows what the signal's handler raised
            raise KeyboardInterrupt
        return found != "timeout"


def ring(bell: Path) -> None:
    """Wake everybody who watches the folder `bell`.

    Not flushed, and nothing is said when it fails: who sleeps through it wakes `RESCAN_S` later.
    """
    with suppress(OSError):
        bell.mkdir(parents=True, exist_ok=True)
        flags = (
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )  # a pipe that nobody reads is not waited for
        descriptor = os.open(bell / "rung", flags, 0o644)
        try:
            os.write(descriptor, f"{time.time_ns()}\n".encode())
        finally:
            os.close(descriptor)
