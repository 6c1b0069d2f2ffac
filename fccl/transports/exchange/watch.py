"""Waiting for another process's file: by notification where the file system sends them, else by looking.

A notification only ends the waiting earlier. The directory itself is looked at after every wait, so a lost notification
costs `RESCAN_S` at most.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from watchdog.events import (
    DirCreatedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from fccl.storage.files import storage_errors
from fccl.storage.mounts import is_remote
from fccl.transports.held import NothingHeld

RESCAN_S = 1.0  # the longest wait without a look when notifications work
POLL_S = 0.2  # when they do not
_SELF_TEST_S = 0.5
_PROBE = ".probe."
_NEW_NAMES = (FileCreatedEvent, FileMovedEvent, DirCreatedEvent)  # a name that was not there, or is another file's now
_NEWS = (*_NEW_NAMES, FileModifiedEvent)  # reading a file is none


class Watcher(Protocol):
    """Waits for a change in a folder."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def wait(self, timeout_s: float) -> bool:
        """Return after a change, or after `timeout_s`, or earlier: look for yourself. Says whether news ended it."""
        ...


def watcher(folder: Path, how: Literal["auto", "notify", "poll"], heed: tuple[str, ...] = ()) -> Watcher:
    """`auto` takes notifications where a file written here is notified and nobody else's machine is behind the file
    system. With `heed` only new names that begin so are news: the others' files are seen at the next look.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if how == "poll" or (how == "auto" and is_remote(folder)):
        return Polling()
    try:
        notified = Notified(folder, heed)
    except (OSError, RuntimeError):  # no notifications here, or no more of them; no thread to be had
        return Polling()
    if how == "notify" or notified.works():
        return notified
    notified.close()
    return Polling()


class Polling(NothingHeld):
    """Sleeps."""

    def wait(self, timeout_s: float) -> bool:
        time.sleep(max(0.0, min(timeout_s, POLL_S)))
        return False


class Notified(FileSystemEventHandler):
    """Wakes when the file system says that something changed in the folder: anything, or new names that begin as
    `heed` says.
    """

    def __init__(self, folder: Path, heed: tuple[str, ...] = ()) -> None:
        self._folder, self._news = folder, threading.Event()
        self._heed = (*heed, _PROBE) if heed else ()
        # an emitter that ends while it reads says so as an error, which the terminal would show
        logging.getLogger("watchdog.observers.inotify").setLevel(logging.CRITICAL)
        self._observer = Observer()
        self._observer.schedule(self, str(folder), event_filter=[*(_NEW_NAMES if heed else _NEWS)])
        self._observer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._observer.stop()
        self._observer.join()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """The observer's thread calls this."""
        path = os.fsdecode(event.dest_path or event.src_path)
        if not self._heed or os.path.basename(path).startswith(self._heed):
            self._news.set()

    def wait(self, timeout_s: float) -> bool:
        return self._heard(min(timeout_s, RESCAN_S))

    def works(self) -> bool:
        """Whether a file written now is notified within a moment."""
        with storage_errors(self._folder):
            descriptor, probe = tempfile.mkstemp(dir=self._folder, prefix=_PROBE, suffix=".tmp")
            os.close(descriptor)
        try:
            return self._heard(_SELF_TEST_S)
        finally:
            with suppress(OSError):
                os.unlink(probe)

    def _heard(self, timeout_s: float) -> bool:
        """Whether there is news, now or within so many seconds."""
        heard = self._news.wait(max(0.0, timeout_s))
        self._news.clear()
        return heard


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
