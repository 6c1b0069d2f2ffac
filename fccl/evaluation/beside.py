"""Models on the test split side by side, each in a worker process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace

from fccl.errors import FcclError, FederationError
from fccl.evaluation.suite import Evaluate, Evaluated, EvaluationSplit, Listen, ToEvaluate, one_by_one
from fccl.model.loading import Models
from fccl.processes.jobs import LOST, Jobs
from fccl.processes.pool import Pool
from fccl.processes.sharing import share_out
from fccl.specs import ModelSpec


@dataclass(frozen=True)
class Evaluator:
    """The object of a process: evaluates adapters of one model, with so many threads."""

    models: Models
    model: ModelSpec
    threads: int

    def evaluate(
        self, subject: ToEvaluate, split: EvaluationSplit, say: Callable[[tuple[int, int]], None]
    ) -> Evaluated:
        """One model on the test split. Raises `ModelError` and `AdapterError`."""
        evaluate = one_by_one(self.models.of(self.model), self.threads)
        return evaluate([subject], split, lambda name: lambda done, total: say((done, total)))[0]


@dataclass(frozen=True)
class EvaluatorMaker:
    """Makes the evaluator of a process, with the model in memory."""

    model: ModelSpec
    threads: int

    def __call__(self) -> Evaluator:
        models = Models()
        with suppress(FcclError):  # it is the error of the evaluation, once that is asked for
            models.of(self.model)
        return Evaluator(models, self.model, self.threads)


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
