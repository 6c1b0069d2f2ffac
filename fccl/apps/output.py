"""Standard output that never ends a command with a traceback, whatever stands at its other end."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from fccl.errors import OutputError


@contextmanager
def guarded_output() -> Iterator[None]:
    """Inside the block, standard output shows what it cannot encode as `?`, and raises `OutputError` when nobody takes
    what is printed.

    It is flushed at the end of the block, where that can still be told: the interpreter's own flush comes too late.
    """
    stream = sys.stdout
    if stream is None:  # closed by the caller: prints go nowhere
        yield
        return
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # standard error does as much by itself
    guarded = _Output(stream)
    sys.stdout = cast(TextIO, guarded)
    try:
        yield
        guarded.flush()
    except SystemExit:  # argparse has printed its help
        guarded.flush()
        raise
    except BaseException:
        with suppress(OutputError):
            guarded.flush()
        raise
    finally:
        sys.stdout = stream


class _Output:
    """A text stream that turns an OSError into one `OutputError` and is silent from then on: what stops a command
    prints a last word too.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._gone = stream, False

    def write(self, text: str) -> int:
        if not self._gone:
            try:
                self._stream.write(text)
            except OSError as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        if not self._gone:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self, error: OSError) -> None:
        self._gone = True
        with suppress(
            OSError, ValueError
        ):  # what is still buffered must go somewhere, or the interpreter fails at it once more
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        what = "its reader is gone" if isinstance(error, BrokenPipeError) else error.strerror or str(error)
        hint = "send it to a file that has room, or to /dev/null; a run that this stopped goes on with --resume"
        raise OutputError(f"cannot write to standard output: {what}", hint=hint) from error


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Inside the block SIGTERM raises `KeyboardInterrupt`."""

    def interrupt(signal_number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
