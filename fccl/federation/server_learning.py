"""Server learning: after the aggregation the server trains the next global adapter on examples of its own.

It is local training as a client's, by the same `Learner`, from the aggregate. The rest of the round is as without it:
the weights, the aggregation and its state (momentum, control variates) know nothing of it. It changes the adapter that
the next round begins with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

from fccl.adapters.adapter import Adapter
from fccl.data.shards import ClientShard
from fccl.errors import AdapterError, FederationError, UpdateRejected
from fccl.messages import ClientFailure, ClientUpdate, FitTask, Learner
from fccl.messages.clients import attempt
from fccl.records.run import ClientStatus, ServerLearning, Validation
from fccl.specs import Phase, TrainSpec, named_seed

GENTLER = "lower LEARN_LR or LEARN_EPOCHS, or leave server learning out (LEARN_EPOCHS=0)"


@dataclass(frozen=True, eq=False)
class ServerLearner:
    """Trains the aggregate on `examples`, the server's learn split, as `train` says for each phase.

    `on_status` hears how far it is, as of a client's training; `client_id` means nothing there.
    """

    learner: Learner
    examples: ClientShard
    train: Mapping[Phase, TrainSpec]
    on_status: Callable[[ClientStatus], None] = lambda status: None

    def with_share(self, share: float) -> Self:
        """The same with so much of its learning rates."""
        return replace(self, train={phase: spec.with_share(share) for phase, spec in self.train.items()})

    def task(self, task: FitTask, aggregate: Adapter) -> FitTask:
        """The server's own task in the round of `task`: from the aggregate, with a seed that no client has.

        In VA rounds it has the clients' reference. SCAFFOLD's corrections are for clients alone.
        """
        seed = named_seed(task.seed, "server learning")
        return replace(task, adapter=aggregate, train=self.train[task.phase], seed=seed, corrections=None)

    def learn(self, task: FitTask, aggregate: Adapter, before: Validation | None) -> tuple[Adapter, ServerLearning]:
        """The next global adapter, and what the round's record says of it; `before` is the aggregate's validation.

        Raises `FederationError` when the training diverges, or a learner's answer is not one to the task.
        """
        started, own = time.monotonic(), self.task(task, aggregate)
        answer = attempt(self.learner.fit, own, 0, lambda _: self.examples, self.on_status)
        if isinstance(answer, ClientFailure):
            raise failed(task, answer.reason)
        try:
            answer.require_answers(own)
            adapter = answer.with_frozen(aggregate).adapter.load()
        except (UpdateRejected, AdapterError) as error:
            raise failed(task, str(error)) from error
        return adapter, self._said(own, answer, aggregate, before, time.monotonic() - started)

    def _said(
        self, own: FitTask, update: ClientUpdate, aggregate: Adapter, before: Validation | None, seconds: float
    ) -> ServerLearning:
        return ServerLearning(
            examples=len(self.examples.of(own.phase)),
            epochs=own.train.epochs,
            steps=update.report.steps,
            avg_loss=update.contribution.avg_loss,
            before=before,
            aggregate_sha256=aggregate.sha256,
            seconds=seconds,
        )


def failed(task: FitTask, why: str) -> FederationError:
    """The error of a round whose clients have done their part. The next attempt would end in the same way."""
    return FederationError(f"round {task.round + 1}: the server's own training: {why}", GENTLER, resumable=False)
