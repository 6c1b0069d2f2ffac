"""A worker process: it makes one object, calls its methods when it is told, and ends with the process that began it.

Its parent writes what it needs to standard input: what to import, how the object is made, then how many processes shall
have one. The
process forks into so many once the libraries and the object are in memory, so these are loaded once and share their
pages. Torch may be forked as long as it has not computed with several threads or gone backward: making the object must
do neither.
"""

from __future__ import annotations

import gc
import os
import pickle
import select
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

SAID, RETURNED, RAISED = range(3)  # the kinds of what a worker sends
NOTHING = ""  # the method of no object: the worker answers, and does nothing


def main() -> None:
    """The life of a process whose arguments are the descriptors of its lines, one for each worker."""
    lines = [int(argument) for argument in sys.argv[1:]]
    try:
        if module := pickle.load(sys.stdin.buffer):
            import_module(module)
        made = pickle.load(sys.stdin.buffer)()
        count = pickle.load(sys.stdin.buffer)
    except EOFError:  # the parent has ended, or needs no worker after all
        return
    for line in lines[count:]:
        os.close(line)
    if count:
        _serve(made, Connection(_own_line(lines[:count])))


def _own_line(lines: Sequence[int]) -> int:
    """Fork until each line has a process. Returns the line of the process that it returns in."""
    gc.freeze()  # collecting garbage would write to pages that the processes share
    mine = lines[-1]
    for line in lines[:-1]:
        with warnings.catch_warnings(action="ignore"):  # of libraries' idle threads, which no fork needs
            if os.fork() == 0:
                mine = line
                break
    for line in lines:
        if line != mine:
            os.close(line)
    return mine


def _serve(made: object, line: Connection) -> None:
    """Do what comes over the line until it is closed."""
    threading.Thread(target=_end_with, args=(line.fileno(),), daemon=True).start()
    while True:
        try:
            method, arguments = pickle.loads(line.recv_bytes())
        except (EOFError, OSError):
            return
        work = _idle if method == NOTHING else getattr(made, method)
        _send(line, _outcome(work, arguments, partial(_say, line)))


def _idle(say: Callable[[Any], None]) -> None:
    """Nothing."""


def _outcome(work: Callable[..., Any], arguments: Sequence[Any], say: Callable[[Any], None]) -> bytes:
    try:
        return pickle.dumps((RETURNED, work(*arguments, say)))
    except Exception as error:  # whatever the work raises is the parent's to judge
        return pickle.dumps((RAISED, _portable(error)))


def _portable(error: Exception) -> Exception:
    """The error, or where it cannot travel one with its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # of a class whose constructor takes other arguments than it keeps, or of one that is local
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _say(line: Connection, value: Any) -> None:
    _send(line, pickle.dumps((SAID, value)))


def _send(line: Connection, content: bytes) -> None:
    try:
        line.send_bytes(content)
    except OSError:  # nobody listens any more
        os._exit(1)


def _end_with(line: int) -> None:
    """End this process in the middle of its work when the other end of the line is closed."""
    poll = select.poll()
    poll.register(line, 0)  # a hang-up is told in any case
    poll.poll()
    os._exit(1)
