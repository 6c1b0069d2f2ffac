"""`Launch`: a child process that loads libraries, makes an object and then becomes workers."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from fccl.errors import FederationError

FORKS = sys.platform == "linux"  # elsewhere the system's own libraries do not survive it
_BOOT = "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from fccl.processes.child import main; main()"
# Torch must have no threads when it is forked, and asks for them later; threads that wait for work must sleep.
_CALM = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
_END_S = 5.0


class Launch:
    """A child that becomes workers: one for each of its lines, as many as `go` says. It begins by importing `module`,
    which may take as long as the imports of this process do. `environment` is added to this process's own.

    Raises `FederationError` when the system starts no process.
    """

    def __init__(self, lines: int, module: str = "", environment: Mapping[str, str] | None = None) -> None:
        pairs = [Pipe() for _ in range(lines)]
        self.lines, self._lines = lines, [mine for mine, _ in pairs]
        try:
            self._process = _child([theirs.fileno() for _, theirs in pairs], environment or {})
        except OSError as error:
            raise FederationError(
                f"cannot start a process for clients: {error.strerror or error}", hint="CLIENT_PROCESSES=1 needs none"
            ) from error
        finally:
            for _, theirs in pairs:
                theirs.close()
        self._write(sys.path)
        self._write(module)

    def make(self, make: Callable[[], object]) -> None:
        """Let it make the object of its workers."""
        self._write(make)

    def go(self, count: int) -> list[Connection]:
        """Let it be so many workers at most, each with the object. Returns their lines."""
        lines = self._lines[: max(0, count)]
        self._write(len(lines))
        for line in self._lines[len(lines) :]:
            line.close()
        self._lines = []
        return lines

    def end(self) -> None:
        """End it, and leave no trace in the system."""
        for line in self._lines:
            line.close()
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()

    def _write(self, value: object) -> None:
        if self._process.stdin is not None:
            with suppress(OSError):  # it has died, and its lines say so
                self._process.stdin.write(pickle.dumps(value))
                self._process.stdin.flush()


def _child(lines: Sequence[int], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A process of this Python, in a session of its own, with these descriptors and without this terminal."""
    return subprocess.Popen(
        [sys.executable, "-c", _BOOT, *map(str, lines)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        pass_fds=lines,
        start_new_session=True,
        env={**_PASSIVE, **os.environ, **_CALM, **environment},
    )
