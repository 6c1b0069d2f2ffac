"""With weights that the server verifies itself, any transport still gives the same bytes, and so does going on after a
stop.
"""

import json

import pytest

from fccl.adapters.stored import StoredAdapter
from fccl.contribution.leave_one_out import LeaveOneOut
from fccl.contribution.validation_loss import ValidationLoss
from fccl.contribution.verified import Verified
from fccl.federation.run_folder import RunFolder
from fccl.paths import ExchangePaths, LogPaths
from fccl.records.journal import Journal
from fccl.records.run import RoundRecord, RunInfo
from fccl.storage.reading import read_records
from fccl.testing.processes import client_processes, exchange_spec
from fccl.testing.quadratic import Quadratic
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.in_process import InProcessTransport

SOURCES = [Verified, LeaveOneOut, ValidationLoss]


def said(results):
    return [(result.record.weights, result.record.scores, result.record.adapter_sha256) for result in results]


def in_process(rule, state=START):
    return federation(rule=rule).run(state, InProcessTransport(ToyLearner(), shard))


@pytest.mark.parametrize("source", SOURCES)
def test_the_exchange_directory_gives_the_bytes_of_one_process(tmp_path, source):
    rule = source(Quadratic(target=(0.5, 0.0, -0.5)))
    expected = list(in_process(rule))
    transport = ExchangeTransport(ExchangePaths(tmp_path / "exchange"), exchange_spec(4), tmp_path / "received")
    with client_processes(tmp_path / "exchange", {number: ToyLearner() for number in range(4)}), transport:
        found = []
        for result in federation(rule=rule).run(START, transport):
            assert all(isinstance(update.adapter, StoredAdapter) for update in result.updates), "weighed from files"
            found.append(result)
        transport.finish("run", 4, found[-1].state.adapter)
    assert said(found) == said(expected)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_going_on_from_the_disk_gives_the_same_bytes(tmp_path, source, stop):
    rule = source(Quadratic(target=(0.5, 0.0, -0.5)))
    expected = list(in_process(rule))
    plan, folder = federation().plan, RunFolder(LogPaths(tmp_path), Journal(LogPaths(tmp_path)))
    run = in_process(
        rule,
        folder.start(RunInfo(run_id="run", created=0.0, settings={}, data_sha256="", versions={}), plan, START.adapter),
    )
    for _ in range(stop):
        folder.commit(next(run), plan)
    assert said(in_process(rule, folder.resume())) == said(expected)[stop:]


def test_what_the_server_found_is_in_the_log_and_is_read_again(tmp_path):
    plan, folder = federation().plan, RunFolder(LogPaths(tmp_path), Journal(LogPaths(tmp_path)))
    folder.start(RunInfo(run_id="run", created=0.0, settings={}, data_sha256="", versions={}), plan, START.adapter)
    results = list(in_process(Verified(Quadratic())))
    for result in results:
        folder.commit(result, plan)
    records = read_records(folder.paths.progress, RoundRecord, lambda row: row.get("event") == "round")
    assert [record.verification for record in records] == [result.record.verification for result in results]
    assert all(record.verification.loss_weights <= record.verification.loss_prior for record in records)


def test_a_log_of_before_is_still_read():
    record = next(in_process(federation().rule)).record
    old = record.model_dump(mode="json")
    assert old.pop("verification") is None
    assert RoundRecord.model_validate_json(json.dumps(old)) == record
