"""The processes that run trials: this process, or several beside each other.

The results are the same bytes either way, since threads are part of the work.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection

from fccl.compare.store import keep
from fccl.compare.trial import Resources, Trial, results_of
from fccl.compare.values import TrialResult
from fccl.errors import FederationError

_resources: Resources | None = None  # of a worker process


def run_all(
    trials: Sequence[Trial], make_resources: Callable[[], Resources], jobs: int
) -> Iterator[tuple[Trial, TrialResult]]:
    """Run the trials and keep each result on the disk; yields them as they are done.

    `make_resources` must be picklable when `jobs` is more than one.

    Raises what a trial raises, and `FederationError` when a process dies. Trials that are done stay done.
    """
    if jobs == 1 or len(trials) < 2:
        resources = make_resources()
        for trial in trials:
            yield trial, _run(resources, trial)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(jobs, len(trials)), mp_context=context, initializer=_begin, initargs=(make_resources,)
    )
    try:
        waiting = {pool.submit(_in_worker, trial): trial for trial in spread(trials)}
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


def spread(trials: Sequence[Trial]) -> list[Trial]:
    """The same trials, seed by seed, their scenarios in turn.

    Trials of one scenario begin with the same first updates, and in VA with the same SFT rounds. Processes that take
    two of them at once would wait for one another.
    """
    turns: Counter[tuple[int, str]] = Counter()
    order = []
    for trial in trials:
        order.append((trial.seed, turns[trial.seed, trial.scenario]))
        turns[trial.seed, trial.scenario] += 1
    seeds = list(dict.fromkeys(trial.seed for trial in trials))
    places = sorted(range(len(trials)), key=lambda place: (seeds.index(order[place][0]), order[place][1]))
    return [trials[place] for place in places]


def _run(resources: Resources, trial: Trial) -> TrialResult:
    """Its own result, kept last: where a process dies before that, all of them are made again, and are the same."""
    results = results_of(resources, trial)
    for result in results:
        keep(resources.paths, result)
    return results[-1]


def _in_worker(trial: Trial) -> TrialResult:
    if _resources is None:
        raise RuntimeError("the process was not prepared")
    return _run(_resources, trial)


def _begin(make_resources: Callable[[], Resources]) -> None:
    """Prepare a worker. Ctrl-C is its parent's business, and it does not outlive it."""
    global _resources
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _resources = make_resources()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
