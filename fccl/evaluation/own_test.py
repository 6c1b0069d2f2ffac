"""Own tests at a client: answers requests of kind `owntest` with means and counts over what the client keeps apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from fccl import phases
from fccl.adapters.adapter import Adapter
from fccl.data.shards import ClientShard
from fccl.errors import DataError
from fccl.evaluation.validation import Validator
from fccl.messages import Learner, OwnTest, OwnTestTask, StatusListener, status_now
from fccl.model.language_model import LanguageModel, cpu_threads
from fccl.model.loading import Models

Personal = Callable[[OwnTestTask, ClientShard], Adapter | None]  # the client's own adapter of the phase, if any
FEWEST = 3  # examples: a mean over fewer says too much of one of them


@dataclass(frozen=True)
class OwnTester:
    """Trains an adapter of the client alone, and scores base, alone, global and personal adapter on the client's own
    test examples. No other party sees these, nor the client's adapters.
    """

    models: Models
    learner: Learner
    personal: Personal = lambda request, shard: None
    asked: ClassVar[type[OwnTestTask]] = OwnTestTask

    def answer(self, request: OwnTestTask, shard: ClientShard, on_status: StatusListener) -> OwnTest:
        """One client's means.

        Raises `DataError` where it keeps too few examples of the phase apart, and what its training raises.
        """
        if len(shard.tests_of(request.phase)) < FEWEST:
            noun = phases.of(request.phase).noun
            raise DataError(f"client {shard.client_id} keeps fewer than {FEWEST} {noun}s apart for its own test")
        on_status(status_now(request, shard.client_id, "evaluating"))
        alone = trained_alone(self.learner, request, shard)
        model = self.models.of(request.model)
        adapters = {"base": model.initial_adapter(seed=0), "alone": alone, "together": request.adapter}
        own = self.personal(request, shard)
        return _scored(model, request, shard, adapters if own is None else adapters | {"personal": own})


def trained_alone(learner: Learner, request: OwnTestTask, shard: ClientShard) -> Adapter:
    """The adapter of a client that trains by itself: from the phase's start, for as many rounds as the phase had."""
    adapter = request.start
    for number in range(len(request.rates)):
        update = learner.fit(request.fit_task(number, adapter), shard, lambda status: None)
        adapter = update.with_frozen(adapter).adapter.load()
    return adapter


def _scored(model: LanguageModel, request: OwnTestTask, shard: ClientShard, adapters: dict[str, Adapter]) -> OwnTest:
    preference = request.train.preference
    split = Validator(model, shard.test_sft, shard.test_va, preference=preference, batch_size=request.batch_size)
    with cpu_threads(request.train.threads):
        losses = {name: split(request.phase, each, request.reference).loss for name, each in adapters.items()}
    examples = units = len(shard.tests_of(request.phase))
    if not phases.of(request.phase).has_pairs:
        units = sum(row.response_length for (row,) in split.examples(request.phase))
    return OwnTest(client_id=shard.client_id, examples=examples, units=units, **losses)
