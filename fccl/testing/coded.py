"""A toy run under a codec, without a transport: what every transport's bytes are compared with."""

from __future__ import annotations

import dataclasses

from fccl.adapters.adapter import Adapter
from fccl.adapters.coded import CodedAdapter, CodedReader
from fccl.aggregation.mean import weighted_mean
from fccl.federation.rounds import Federation
from fccl.messages import ClientUpdate, FitTask
from fccl.records.run import ClientStatus
from fccl.specs import named_seed
from fccl.specs.codecs import CodecSpec
from fccl.testing.reference_learner import LearnerWithReference
from fccl.testing.toy import MODEL, START, TRAIN, adapter, shard


def coding(fed: Federation, codec: CodecSpec) -> Federation:
    """The federation with adapters that travel in this codec."""
    train = TRAIN.model_copy(update={"codec": codec})
    return dataclasses.replace(fed, train={"sft": train, "va": train})


def codec_length(codec: CodecSpec) -> int:
    """The bytes of an update of the toy."""
    return CodedReader(adapter(), codec).length


def coded_by_hand(fed: Federation) -> Adapter:
    """The run: every client's residual and the server's in a dict of vectors, each phase begun without any."""
    server, codec = START.adapter, fed.train["sft"].codec
    reference: Adapter | None = None
    left: dict[int, Adapter] = {}
    for number in range(fed.plan.total_rounds):
        phase = fed.plan.phase_of(number)
        if fed.plan.begins_phase(number):
            left, reference = {}, server if phase == "va" else None
        task = FitTask("run", number, phase, server, reference, MODEL, fed.train[phase], fed.plan.seed)
        updates = [_sent(task, client, left) for client in range(fed.plan.num_clients)]
        weights = fed.rule.weigh(task, updates).weights
        mean = weighted_mean(zip(weights, [update.adapter.load() for update in updates], strict=True))
        wanted = _sum(mean, left.get(-1), 1)
        if number == fed.plan.total_rounds - 1:
            return wanted
        seed = named_seed(fed.plan.seed, "codec", phase, number, "server")
        server = CodedAdapter.of(wanted, server, codec, seed).load()
        left[-1] = _sum(wanted, server, -1)
    raise ValueError("a run has at least one round")


def _sent(task: FitTask, client: int, left: dict[int, Adapter]) -> ClientUpdate:
    update = LearnerWithReference().fit(task, shard(client), _unheard)
    codec = task.train.codec
    wanted = _sum(update.adapter.load(), left.get(client), 1)
    seed = named_seed(task.seed, "codec", task.phase, task.round, client)
    sent = CodedAdapter.of(wanted, task.adapter, codec, seed)
    if codec.remembers:
        left[client] = _sum(wanted, sent.load(), -1)
    return dataclasses.replace(update, adapter=sent.load())


def _sum(one: Adapter, other: Adapter | None, times: int) -> Adapter:
    if other is None:
        return one
    return Adapter({name: tensor + times * other.tensors[name] for name, tensor in one.tensors.items()})


def _unheard(status: ClientStatus) -> None:
    """Nobody listens."""
