"""Exact aggregation and clients of different rank: the same bytes by any transport and after a stop; a rank that is not
allowed is refused.
"""

import dataclasses
import json

import pytest

from fccl.adapters.adapter import load_adapter
from fccl.adapters.ranks import leading, rank_of, with_frozen
from fccl.adapters.stored import StoredAdapter
from fccl.contribution.leave_one_out import LeaveOneOut
from fccl.contribution.reported import ContributionRule
from fccl.contribution.validation_loss import ValidationLoss
from fccl.contribution.verified import Verified
from fccl.errors import AdapterError, UpdateRejected
from fccl.federation.run_folder import RunFolder
from fccl.messages import FitTask
from fccl.paths import ExchangePaths, LogPaths
from fccl.records.journal import Journal
from fccl.records.run import RunInfo
from fccl.testing.lora_toy import MODEL, RANK, START, LoraLearner, factors, lora_federation
from fccl.testing.processes import client_processes, exchange_spec
from fccl.testing.toy import shard
from fccl.testing.transport import CLIENTS
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.in_process import InProcessTransport
from tests.transports.exchange_tools import clients

MIXED = (3, 1, 2)
INFO = RunInfo(run_id="run", created=0.0, settings={}, data_sha256="", versions={})


class Size:
    """`LearnLoss`: half the squared norm of what clients train."""

    def examples(self, phase):
        return 1

    def drawn(self, task):
        return (0,)

    def loss(self, task, adapter):
        assert adapter.form == task.trained.form
        return 0.5 * sum(float(tensor.double().square().sum()) for tensor in adapter.tensors.values())

    def slopes(self, task, adapter, directions):
        found = [
            sum(float((t.double() * one.tensors[name].double()).sum()) for name, t in adapter.tensors.items())
            for one in directions
        ]
        return self.loss(task, adapter), tuple(found)


def in_process(fed, ranks, state=START):
    return fed.run(state, InProcessTransport(LoraLearner(ranks), shard))


def said(results):
    return [
        (r.record.weights, r.record.scores, r.record.adapter_sha256, r.record.lora_error, r.record.update_norm)
        for r in results
    ]


@pytest.mark.parametrize("name", ["exact", "svd"])
@pytest.mark.parametrize("ranks", [(RANK,), MIXED])
def test_the_exchange_directory_gives_the_bytes_of_one_process(tmp_path, name, ranks):
    fed = lora_federation(name)
    expected = list(in_process(fed, ranks))
    widths = [rank_of(result.state.adapter.form) for result in expected]
    assert widths == ([RANK] * 4 if name == "svd" else widths)
    assert name == "svd" or widths[0] < widths[1]
    transport = ExchangeTransport(ExchangePaths(tmp_path / "exchange"), exchange_spec(CLIENTS), tmp_path / "received")
    with client_processes(tmp_path / "exchange", {number: LoraLearner(ranks) for number in range(CLIENTS)}), transport:
        found = list(fed.run(START, transport))
        transport.finish("run", 4, found[-1].state.adapter)
    assert said(found) == said(expected)
    assert [r.record.excluded for r in found] == [()] * 4
    for mine, theirs in zip(found, expected, strict=True):
        assert [u.adapter.form for u in mine.updates] == [u.adapter.form for u in theirs.updates]


@pytest.mark.parametrize("ranks", [(RANK,), MIXED])
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_going_on_from_the_disk_gives_the_same_bytes(tmp_path, ranks, stop):
    fed = lora_federation()
    expected = list(in_process(fed, ranks))
    folder = RunFolder(LogPaths(tmp_path), Journal(LogPaths(tmp_path)))
    run = in_process(fed, ranks, folder.start(INFO, fed.plan, START.adapter))
    for _ in range(stop):
        folder.commit(next(run), fed.plan)
    assert said(in_process(fed, ranks, folder.resume())) == said(expected)[stop:]


def test_a_clients_last_update_is_kept_with_what_stood_behind_it(tmp_path):
    """So `fccl evaluate --per-client` sees the model that the client had."""
    fed, folder = lora_federation(), RunFolder(LogPaths(tmp_path), Journal(LogPaths(tmp_path)))
    folder.start(INFO, fed.plan, START.adapter)
    one, two = list(in_process(fed, MIXED))[:2]
    folder.commit(one, fed.plan)
    folder.commit(two, fed.plan)
    before = one.state.adapter
    for client_id, rank in enumerate((3, 1, 2, 3)):
        kept = load_adapter(folder.paths.client_adapter(client_id, "sft"))
        assert kept.form == before.form
        assert with_frozen(leading(kept, rank), before).sha256 == kept.sha256 != before.sha256


@pytest.mark.parametrize("source", [ContributionRule, Verified, LeaveOneOut, ValidationLoss])
@pytest.mark.parametrize("rule", ["fedavg", "krum", "geometric_median"])
def test_every_source_and_rule_takes_different_ranks(source, rule):
    weigher = source() if source is ContributionRule else source(Size())
    fed = dataclasses.replace(lora_federation(rule=rule, clients=5), rule=weigher)
    results = list(in_process(fed, MIXED))
    assert [len(result.record.clients) for result in results] == [5] * 4
    assert all(result.record.lora_error < 1e-6 for result in results)


# --- ranks that are not allowed


def task(lower=True, wide=5):
    train = lora_federation("exact" if lower else "factors").train["sft"]
    return FitTask("run", 0, "sft", factors(1, wide), None, MODEL, train, 7)


def test_an_update_may_have_the_federations_rank_or_a_lower_one():
    answer = next(InProcessTransport(LoraLearner(), shard).ask(task(), [0]))
    for rank in (1, 2, 3):
        dataclasses.replace(answer, adapter=factors(2, rank)).require_answers(task())
    for rank in (4, 5, 6):
        with pytest.raises(UpdateRejected, match=f"rank {rank} is more than LORA_R=3"):
            dataclasses.replace(answer, adapter=factors(2, rank)).require_answers(task())
    dataclasses.replace(answer, adapter=factors(2, 3)).require_answers(task(lower=False))
    with pytest.raises(
        UpdateRejected, match="rank 2 is less than LORA_R=3, which only LORA_AGGREGATION=svd and exact allow"
    ):
        dataclasses.replace(answer, adapter=factors(2, 2)).require_answers(task(lower=False))


def test_a_reference_may_have_another_rank_and_no_other_modules():
    values = task().__dict__ | {"phase": "va"}
    FitTask(**values | {"reference": factors(3, 9)})
    with pytest.raises(AdapterError):
        FitTask(**values | {"reference": type(factors(0))({"w": factors(0).tensors["m.mlp.lora_A.weight"]})})


def answered(tmp_path, ranks, lower=True, spoil=lambda paths: None):
    """Clients 0 and 1 answer over the exchange directory; their files are spoilt before the server looks."""
    paths = ExchangePaths(tmp_path / "exchange")
    with ExchangeTransport(paths, exchange_spec(2, timeout_s=0.01), tmp_path / "received") as exchange:
        asked = task(lower)
        opened = exchange.open(asked, (0, 1))
        for number in (0, 1):
            client = ExchangeClient(paths, number, LoraLearner(ranks), shard)
            client.commit(opened, LoraLearner(ranks).fit(asked, shard(number), lambda status: None))
        spoil(paths)
        return {answer.client_id: answer for answer in exchange.ask(asked, (0, 1))}


def test_the_server_takes_each_rank_with_the_bound_of_its_own(tmp_path):
    found = answered(tmp_path, (3, 1))
    assert all(isinstance(answer.adapter, StoredAdapter) for answer in found.values())
    assert [rank_of(found[number].adapter.form) for number in (0, 1)] == [3, 1]
    assert found[1].adapter.reader.max_bytes < found[0].adapter.reader.max_bytes


@pytest.mark.parametrize(
    ("ranks", "lower", "reason"),
    [((3, 4), True, "rank 4 is more than LORA_R=3"), ((3, 2), False, "rank 2 is less than")],
)
def test_the_server_refuses_a_rank_that_is_not_allowed(tmp_path, ranks, lower, reason):
    found = answered(tmp_path, ranks, lower)
    assert found[1].reason.startswith(f"refused: {reason}")
    assert "\n" not in found[1].reason


def said_of_another_rank(paths):
    path = paths.contribution(1, 0)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_r": 2}))


def test_an_update_of_another_rank_than_its_contribution_says_is_refused(tmp_path):
    assert "expected" in answered(tmp_path, (3, 1), spoil=said_of_another_rank)[1].reason


def test_a_client_reads_adapters_of_growing_rank_with_one_process(tmp_path):
    paths = ExchangePaths(tmp_path / "exchange")
    with (
        ExchangeTransport(paths, exchange_spec(2), tmp_path / "received") as exchange,
        clients(paths, {0: LoraLearner(), 1: LoraLearner((1,))}),
    ):
        for number, wide in enumerate((3, 7, 5, 3)):
            asked = dataclasses.replace(task(wide=wide), round=number)
            found = {answer.client_id: answer for answer in exchange.ask(asked, (0, 1))}
            for client_id, ranks in ((0, (3,)), (1, (1,))):
                expected = LoraLearner(ranks).fit(asked, shard(client_id), lambda status: None)
                assert found[client_id].adapter.load().sha256 == expected.adapter.sha256
        exchange.finish("run", 9, factors(1, 8))
