"""Evaluation at a client: answers requests of kind `evaluate` with the loss on the client's own shard.

transport = InProcessTransport(learner, load_shard, services=[ClientEvaluator(models)])
losses = {answer.client_id: answer for answer in transport.ask(task, [0, 1, 2])}
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from fccl import phases
from fccl.data.shards import ClientShard
from fccl.evaluation.validation import Validator
from fccl.messages import ClientEvaluation, EvaluateTask, StatusListener, status_now
from fccl.model.language_model import cpu_threads
from fccl.model.loading import Models


@dataclass(frozen=True)
class ClientEvaluator:
    """Scores adapters on shards with the models that the client trains with. It sees no other client's data."""

    models: Models = field(default_factory=Models)
    asked: ClassVar[type[EvaluateTask]] = EvaluateTask

    def answer(self, request: EvaluateTask, shard: ClientShard, on_status: StatusListener) -> ClientEvaluation:
        """The loss on one shard's examples of the phase. Leaves the request's adapter loaded.

        Raises `DataError` when the shard has none, and `AdapterError` when the loss is not finite.
        """
        shard.require(request.phase)
        on_status(status_now(request, shard.client_id, "evaluating"))
        model = self.models.of(request.model)
        split = Validator(model, shard.sft, shard.va, preference=request.preference, batch_size=request.batch_size)
        with cpu_threads(request.threads):
            found = split(request.phase, request.adapter, request.reference)
        units = found.examples
        if not phases.of(request.phase).has_pairs:
            units = sum(row.response_length for (row,) in split.examples(request.phase))
        return ClientEvaluation(client_id=shard.client_id, loss=found.loss, units=units, examples=found.examples)
