"""The way down: every adapter of a run, made again by a client that has only ever read the few bytes."""

from dataclasses import replace

import pytest

from fccl.adapters.short import read_short
from fccl.aggregation.protocol import Parts
from fccl.aggregation.rules import aggregation
from fccl.federation.kept_rounds import kept_round
from fccl.federation.replay import ReplayedRun
from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.paths import LogPaths
from fccl.specs.codecs import CodecSpec
from fccl.testing.coded import coded_by_hand, coding
from fccl.testing.reference_learner import LearnerWithReference
from fccl.testing.toy import START, federation, shard
from fccl.transports.in_process import InProcessTransport

CODECS = [CodecSpec(name=name, share=0.3) for name in ("fp16", "int8", "int4", "topk", "int3")]


def run_of(fed):
    return list(fed.run(START, InProcessTransport(LearnerWithReference(), shard)))


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_who_reads_only_the_few_bytes_has_every_round_s_adapter(codec):
    held = []
    for result in run_of(coding(federation(rounds=3), codec)):
        task = result.inputs.task
        length = len(task.adapter.to_bytes())
        held = [read_short(bytearray(task.coded), held, codec, length, "it")]
        assert held[0].sha256 == task.adapter.sha256
        assert result.record.sent.down == len(task.coded)


@pytest.mark.parametrize("codec", CODECS, ids=str)
def test_a_run_has_the_bytes_that_the_formulas_give(codec):
    fed = coding(federation(rounds=3), codec)
    assert run_of(fed)[-1].state.adapter.to_bytes() == coded_by_hand(fed).to_bytes()


def test_the_last_adapter_is_whole_and_has_all_that_was_left_out():
    results = run_of(coding(federation(rounds=2, va_rounds=0), CodecSpec(name="topk", share=0.3)))
    before, last = results[-2].state, results[-1]
    kept, after = last.inputs, last.state
    assert (after.down, before.down.lag is None) == (None, False)
    parts = Parts(last.record.weights, [update.adapter for update in kept.arrived])
    mean = aggregation("fedavg").aggregate(kept.task.adapter, parts, kept.server).adapter
    assert (after.adapter.vector - before.down.lag.vector - mean.vector).abs().max() < 1e-6


def test_under_fp32_nothing_is_added_to_the_round():
    results = run_of(federation(rounds=1))
    assert [(result.inputs.task.coded, result.state.down) for result in results] == [(None, None)] * 2
    assert {result.record.sent.down for result in results} == {len(START.adapter.to_bytes())}
    assert '"coded"' not in str(results[0].inputs.task.terms())


def test_a_phase_that_begins_with_an_earlier_round_s_adapter_sends_it_whole():
    fed = coding(federation(rounds=2, result_round="best"), CodecSpec(name="int8"))
    losses = iter([1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0])
    fed = replace(fed, validate=lambda phase, adapter, reference: _loss(next(losses)))
    results = run_of(fed)
    assert [result.inputs.task.coded is None for result in results] == [False, False, True, False]


def _loss(value):
    from fccl.records.run import Validation

    return Validation(loss=value, examples=1)


def test_each_client_reads_whole_what_it_has_no_base_for():
    sent = run_of(coding(federation(rounds=2), CodecSpec(name="int8")))[1].record.sent
    assert sent.down < sent.whole
    assert sent.down_to((0, 1, 2), (0, 1)) == 2 * sent.down + sent.whole
    assert sent.down_to((0, 1, 2), None) == 3 * sent.down


@pytest.mark.parametrize("codec", [CODECS[2], CODECS[3]], ids=str)
def test_a_run_that_is_resumed_after_every_round_has_the_same_bytes(codec, tmp_path):
    fed, folder = coding(federation(rounds=2), codec), RunFolder.at(tmp_path / "logs")
    transport = InProcessTransport(LearnerWithReference(), shard)
    for number in range(fed.plan.total_rounds):
        rounds = Run(fed, folder, lambda: START.adapter).rounds(transport, resume=number > 0)
        next(rounds)
        rounds.close()
    assert folder.resume().adapter.sha256 == coded_by_hand(fed).sha256


def test_a_run_made_again_from_its_kept_rounds_has_the_same_adapters(tmp_path):
    """From its beginning, and from every later round alone: what was left out is kept with the round."""
    fed, logs = coding(federation(rounds=3), CODECS[3]), LogPaths(tmp_path / "logs")
    run = Run(fed, RunFolder.at(logs.root), lambda: START.adapter)
    records = [result.record for result in run.rounds(InProcessTransport(LearnerWithReference(), shard))]
    for by_round in (False, True):
        again = ReplayedRun(logs, replace(fed, run_id=run.identity.run_id), total=6, by_round=by_round).rounds()
        assert [each.record.adapter_sha256 for each in again] == [each.adapter_sha256 for each in records]


def test_the_aggregate_of_a_kept_round_is_what_its_record_names(tmp_path):
    fed, logs = coding(federation(rounds=2), CODECS[3]), LogPaths(tmp_path / "logs")
    run = Run(fed, RunFolder.at(logs.root), lambda: START.adapter)
    list(run.rounds(InProcessTransport(LearnerWithReference(), shard)))
    for number in range(fed.plan.total_rounds):
        kept = kept_round(logs, number)
        parts = Parts(kept.record.weights, [update.adapter for update in kept.updates()])
        assert fed.aggregation.aggregate(kept.adapter, parts, kept.server).adapter.sha256 == kept.aggregate_sha256
