"""Models on the test split side by side, each in a worker process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from fccl.errors import FederationError
from fccl.evaluation.suite import Evaluate, Evaluated, EvaluationSplit, Listen, ToEvaluate
from fccl.processes.jobs import LOST, Jobs
from fccl.processes.pool import Pool
from fccl.processes.sharing import share_out


def side_by_side_in(pool: Pool) -> Evaluate:
    """Evaluates subjects in the pool's processes, whose objects have `evaluate(subject, split, say)`.

    The results are those of one process with as many threads. Evaluating raises `FederationError` when two processes
    have died with the same subject.
    """

    def evaluate(subjects: Sequence[ToEvaluate], split: EvaluationSplit, listen: Listen) -> list[Evaluated]:
        progress = [listen(subject.name) for subject in subjects]
        jobs = Jobs(
            pool,
            "evaluate",
            share_out(dict.fromkeys(range(len(subjects)), 1.0), {}, pool.count),
            lambda number: (subjects[number], split),
            lambda number, said: progress[number](*said),
        )
        with closing(jobs.outcomes()) as outcomes:
            found = dict(outcomes)
        if lost := [subject.name for number, subject in enumerate(subjects) if found[number] is LOST]:
            raise FederationError(
                f"the process that evaluated {lost[0]} ended twice",
                hint="too little memory is the usual cause: CLIENT_PROCESSES=1 needs least",
            )
        return [replace(found[number], adapter=subject.adapter, split=split) for number, subject in enumerate(subjects)]

    return evaluate
