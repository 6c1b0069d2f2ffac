"""Rounds of middle matrices: what is sent each way, over a kill, over the exchange directory, and made again."""

from dataclasses import replace

import pytest
import torch

from fccl.adapters.adapter import Adapter
from fccl.adapters.codecs import codec_of
from fccl.adapters.coded import HEADER_BYTES
from fccl.adapters.middle import fixed_sha256, middle_form, moving, with_middles
from fccl.adapters.short import read_short
from fccl.federation.replay import ReplayedRun
from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.federation.server_learning import ServerLearner
from fccl.federation.state import FederationState
from fccl.paths import ExchangePaths, LogPaths
from fccl.specs.codecs import CodecSpec
from fccl.testing.lora_toy import LoraLearner, factors, lora_federation
from fccl.testing.processes import client_processes, exchange_spec
from fccl.testing.toy import shard
from fccl.testing.transport import CLIENTS
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.in_process import InProcessTransport

FORM = with_middles(factors(0).form)
SQUARES = {name: torch.zeros(shape) for name, shape in middle_form(FORM).shapes.items()}
START = FederationState(0, Adapter({**factors(0).tensors, **SQUARES}))
CODECS = [CodecSpec(), CodecSpec(name="int8"), CodecSpec(name="int3")]
MIDDLE_BYTES = len(moving(START.adapter).to_bytes())


def coding(codec, rule="fedavg", **changes):
    fed = lora_federation("fed_sb", rule, **changes)
    train = fed.train["sft"].model_copy(update={"codec": codec})
    return replace(fed, train={"sft": train, "va": train})


def in_process():
    return InProcessTransport(LoraLearner(), shard)


def said(results):
    return [(each.record.weights, each.record.adapter_sha256, each.record.sent) for each in results]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_the_factors_are_sent_once_and_then_the_middle_matrices_alone(codec):
    """Who reads the first adapter whole, and only few bytes from then on, has every round's adapter to the bit."""
    results = list(coding(codec, rounds=3).run(START, in_process()))
    held, whole = [], len(START.adapter.to_bytes())
    update = MIDDLE_BYTES if codec.is_whole else HEADER_BYTES + codec_of(codec).length(middle_form(FORM))
    down = update + 40 if codec.is_whole else update
    for number, result in enumerate(results):
        task, sent = result.inputs.task, result.record.sent
        assert (task.coded is None) == (number == 0)
        held = [read_short(bytearray(task.coded), held, codec, whole, "it")] if number else [task.adapter]
        assert held[0].sha256 == task.adapter.sha256
        assert fixed_sha256(task.adapter) == fixed_sha256(START.adapter)
        assert [moving(each.adapter.load()).form for each in result.inputs.arrived] == [middle_form(FORM)] * 4
        assert (sent.up, sent.down, sent.whole) == (4 * update, down if number else whole, whole)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_the_exchange_directory_gives_the_bytes_of_one_process(tmp_path, codec):
    fed = coding(codec)
    expected = list(fed.run(START, in_process()))
    transport = ExchangeTransport(ExchangePaths(tmp_path / "exchange"), exchange_spec(CLIENTS), tmp_path / "received")
    with client_processes(tmp_path / "exchange", {number: LoraLearner() for number in range(CLIENTS)}), transport:
        found = list(fed.run(START, transport))
        transport.finish("run", 4, found[-1].state.adapter)
    assert said(found) == said(expected)
    assert [each.record.excluded for each in found] == [()] * 4


@pytest.mark.parametrize("rule", ["fedavg", "fedadam", "median"])
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_a_run_that_is_resumed_after_every_round_has_the_same_bytes(codec, rule, tmp_path):
    fed, folder = coding(codec, rule), RunFolder.at(tmp_path / "logs")
    expected = list(fed.run(START, in_process()))[-1].state.adapter
    clients = in_process()  # who remember what they have left out
    for number in range(fed.plan.total_rounds):
        rounds = Run(fed, folder, lambda: START.adapter).rounds(clients, resume=number > 0)
        next(rounds)
        rounds.close()
    assert folder.resume().adapter.sha256 == expected.sha256


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_a_run_made_again_from_its_kept_rounds_has_the_same_adapters(tmp_path, codec):
    fed, logs = coding(codec), LogPaths(tmp_path / "logs")
    run = Run(fed, RunFolder.at(logs.root), lambda: START.adapter)
    records = [result.record for result in run.rounds(in_process())]
    for by_round in (False, True):
        again = ReplayedRun(logs, replace(fed, run_id=run.identity.run_id), total=4, by_round=by_round).rounds()
        assert [each.record.adapter_sha256 for each in again] == [each.adapter_sha256 for each in records]


def test_the_server_learns_middle_matrices_too():
    fed = coding(CodecSpec())
    learner = ServerLearner(LoraLearner(), shard(0), fed.train)
    results = list(replace(fed, learn=learner).run(START, in_process()))
    plain = list(fed.run(START, in_process()))
    assert {fixed_sha256(each.state.adapter) for each in results} == {fixed_sha256(START.adapter)}
    assert results[0].record.learning.aggregate_sha256 == plain[0].record.adapter_sha256
    assert results[0].state.adapter.sha256 != plain[0].state.adapter.sha256


def test_an_update_with_factors_is_refused():
    class WithFactors(LoraLearner):
        def fit(self, task, shard, on_status):
            answer = super().fit(task, shard, on_status)
            return replace(answer, adapter=task.adapter) if shard.client_id == 1 else answer

    record = next(coding(CodecSpec()).run(START, InProcessTransport(WithFactors(), shard))).record
    assert [(each.client_id, "different tensors" in each.reason) for each in record.excluded] == [(1, True)]
