"""Every rule over Flower: weights and adapters of one process, to the bit."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from fccl.aggregation.rules import LORA_READS, aggregation
from fccl.aggregation.rules import RULES as AGGREGATIONS
from fccl.contribution.rules import MODES, weigher
from fccl.contribution.rules import RULES as SOURCES
from fccl.paths import ExchangePaths
from fccl.testing import lora_toy, toy
from fccl.testing.processes import exchange_spec
from fccl.testing.quadratic import Quadratic
from fccl.testing.toy import shard
from fccl.testing.transport import keeping
from fccl.transports.flower.transport import FlowerTransport
from fccl.transports.in_process import InProcessTransport
from tests.transports.exchange.test_server_contract import client_threads
from tests.transports.flower.grids import super_nodes

pytestmark = pytest.mark.slow
CLIENTS = 5  # the fewest of Krum
OF_FACTORS = sorted(set(LORA_READS) - {"fed_sb"})  # whose adapters are middle matrices, no factors
WEIGHING = [*(("cognitive", name) for name in SOURCES), *((name, "verified") for name in MODES)]


def over_flower(folder, fed, start, learner):
    """The rounds of a federation whose sites are nodes of a grid in memory."""
    folders = {number: folder / f"site_{number}" for number in range(CLIENTS)}
    paths, spec = ExchangePaths(folder / "server"), exchange_spec(CLIENTS, timeout_s=120.0, stale_s=120.0)
    with ExitStack() as held:
        for number, site in folders.items():
            held.enter_context(client_threads(site, {number: learner}, grace_s=0.1))
        nodes = held.enter_context(super_nodes(folders))
        with FlowerTransport(nodes.grid, paths, spec, folder / "received", poll_s=0.01) as transport:
            results = list(keeping(fed).run(start, transport))
            transport.finish(fed.run_id, fed.plan.total_rounds, results[-1].state.adapter)
    return said(results)


def said(results):
    return [(result.record.weights, result.record.scores, result.state.adapter.to_bytes()) for result in results]


def alone(fed, start, learner):
    return said(keeping(fed).run(start, InProcessTransport(learner, shard)))


def assert_same(folder, fed, start=toy.START, learner=None):
    learner = learner or toy.ToyLearner()
    found = over_flower(folder, fed, start, learner)
    assert len(found) == fed.plan.total_rounds
    assert found == alone(fed, start, learner)


@pytest.mark.parametrize(("mode", "source"), WEIGHING)
def test_every_source_weighs_as_in_one_process(tmp_path, mode, source):
    rule = weigher(mode, source, {}, lambda: Quadratic(target=(0.5, 0.0, -0.5)))
    assert_same(tmp_path, toy.federation(CLIENTS, 1, rule))


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_every_aggregation_has_the_bytes_of_one_process(tmp_path, name):
    assert_same(tmp_path, toy.federation(CLIENTS, 1, aggregation=aggregation(name)))


@pytest.mark.parametrize("name", OF_FACTORS)
def test_every_aggregation_of_factors_has_them_too(tmp_path, name):
    assert_same(
        tmp_path, lora_toy.lora_federation(name, clients=CLIENTS, rounds=1), lora_toy.START, lora_toy.LoraLearner()
    )
