"""Who runs the cells: this process, or several beside each other.

The results are the same bytes either way, since threads are part of the work.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection

from fccl.compare.store import keep
from fccl.compare.trial import Cell, Lab, run_cell
from fccl.compare.values import CellResult
from fccl.errors import FederationError

_lab: Lab | None = None  # of a worker process


def run_all(cells: Sequence[Cell], make_lab: Callable[[], Lab], jobs: int) -> Iterator[tuple[Cell, CellResult]]:
    """Run the cells and keep each result on the disk; yields them as they are done. `make_lab` must be picklable when
    `jobs` is more than one.

    Raises what a cell raises, and `FederationError` when a process dies. Cells that are done stay done.
    """
    if jobs == 1 or len(cells) < 2:
        lab = make_lab()
        for cell in cells:
            yield cell, _run(lab, cell)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(cells)), mp_context=context, initializer=_begin, initargs=(make_lab,))
    try:
        waiting = {pool.submit(_work, cell): cell for cell in cells}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
    except BrokenProcessPool as error:
        raise FederationError(
            "a process of the comparison died", hint="too little memory is the usual cause: --jobs 1 needs least"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()


def _run(lab: Lab, cell: Cell) -> CellResult:
    result = run_cell(lab, cell)
    keep(lab.paths, result)
    return result


def _work(cell: Cell) -> CellResult:
    if _lab is None:
        raise RuntimeError("the process was not prepared")
    return _run(_lab, cell)


def _begin(make_lab: Callable[[], Lab]) -> None:
    """Prepare a worker. Ctrl-C is its parent's business, and it does not outlive it."""
    global _lab
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _lab = make_lab()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
