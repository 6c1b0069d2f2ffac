"""Jobs shared out among workers: an even share each, and each job where it was before if that costs no time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_PATIENCE = 1.1  # a share that is longer by so much is worth it: a worker keeps what it has made for its jobs

Queues = Mapping[int, Sequence[int]]  # worker -> its jobs, the longest first


def share_out(sizes: Mapping[int, float], homes: Mapping[int, int], workers: int) -> Queues:
    """The jobs of `sizes` by worker: the longest first, each to the worker that has least (Graham 1969).

    A job that has a home in `homes` goes there, unless the longest queue would be longer by a tenth for it. A worker
    without a job is left out.

    >>> share_out({0: 5, 1: 4, 2: 3}, {}, 2)
    {0: [0], 1: [1, 2]}
    >>> share_out({0: 5, 1: 4, 2: 3}, {0: 1}, 2)
    {1: [0], 0: [1, 2]}
    """
    known = {job: worker for job, worker in homes.items() if worker < workers}
    fresh, kept = _dealt(sizes, {}, workers), _dealt(sizes, known, workers)
    return kept if _longest(kept, sizes) <= _PATIENCE * _longest(fresh, sizes) else fresh


def _dealt(sizes: Mapping[int, float], homes: Mapping[int, int], workers: int) -> dict[int, list[int]]:
    """The jobs that have a home first."""
    loads, queues = dict.fromkeys(range(workers), 0.0), dict[int, list[int]]()
    for job in sorted(sizes, key=lambda job: (job not in homes, -sizes[job], job)):
        worker = homes[job] if job in homes else min(loads, key=lambda each: loads[each])
        queues.setdefault(worker, []).append(job)
        loads[worker] += sizes[job]
    return {worker: sorted(queue, key=lambda job: (-sizes[job], job)) for worker, queue in queues.items()}


def _longest(queues: Queues, sizes: Mapping[int, float]) -> float:
    return max((sum(sizes[job] for job in queue) for queue in queues.values()), default=0.0)
