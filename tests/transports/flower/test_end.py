"""The end of a run is carried to its sites, to those too that come back while it is told."""

from __future__ import annotations

import threading
from dataclasses import replace

from fccl.paths import ExchangePaths
from fccl.records.sites import SitesRecord
from fccl.storage.reading import read_value
from fccl.testing.toy import START, ToyLearner, federation
from fccl.transports.flower.client_app import app
from fccl.transports.protocol import RunIdentity
from tests.transports.exchange_tools import until

FED = replace(federation(2, rounds=1), run_id="run")


def told(sites, number):
    """Whether a site has heard of the end."""
    phase = ExchangePaths(sites.site(number)).phase(FED.plan.total_rounds)
    return phase.exists() and phase.read_text() == "done"


def finish(transport, adapter):
    transport.finish(FED.run_id, FED.plan.total_rounds, adapter)


def away(sites, number):
    return sites.log.exists() and not read_value(sites.log, SitesRecord).sites[number].online


def test_a_site_that_is_away_when_the_run_ends_hears_of_it_when_it_comes_back(sites):
    """It comes when the other one has heard."""

    def first(message, context):
        reply = app(message, context)
        if message.metadata.message_type == "train" and told(sites, 0):
            sites.start(1)
        return reply

    sites.start(0, first)
    node = sites.start(1)
    with sites.workers(0, 1), sites.transport() as transport:
        results = list(FED.run(START, transport))
        sites.nodes.stop(node)
        until(lambda: away(sites, 1))
        assert not told(sites, 1)
        finish(transport, results[-1].state.adapter)
        assert told(sites, 0)
        assert told(sites, 1)


def test_a_server_that_is_started_only_to_end_its_run_tells_all_sites(sites):
    """It does not know yet whose site each node is."""
    nodes = [sites.start(0), sites.start(1)]
    with sites.workers(0, 1):
        with sites.transport() as transport:
            results = list(FED.run(START, transport))
            for node in nodes:
                sites.nodes.stop(node)
        for number in (0, 1):
            assert not told(sites, number)
            sites.start(number)
        with sites.transport() as transport:
            transport.begin(RunIdentity(FED.run_id))
            finish(transport, results[-1].state.adapter)
            assert told(sites, 0)
            assert told(sites, 1)


def test_a_site_that_was_never_there_keeps_the_end_from_nobody(sites):
    sites.start(0)
    with sites.workers(0), sites.transport() as transport:
        transport.begin(RunIdentity(FED.run_id))
        finish(transport, START.adapter)
        assert told(sites, 0)


def test_a_site_beyond_the_federation_s_number_hears_of_the_end_too(sites):
    """Its worker would wait for ever: it has a SuperNode here, and no part in the run."""
    for number in range(3):
        sites.start(number)
    with sites.workers(0, 1), sites.transport() as transport:
        results = list(FED.run(START, transport))
        finish(transport, results[-1].state.adapter)
        assert [told(sites, number) for number in range(3)] == [True, True, True]


def test_a_site_whose_answer_to_the_last_round_is_late_hears_of_the_end_all_the_same(sites):
    """It would wait for an answer that counts nowhere, longer than the end is told."""
    come = threading.Event()

    class Slow(ToyLearner):
        def fit(self, task, shard, on_status):
            assert task.round < last or shard.client_id == 0 or come.wait(120.0)
            return super().fit(task, shard, on_status)

    fed = replace(federation(2, rounds=1, late_updates="next"), run_id="run")
    last, limits = fed.plan.total_rounds - 1, {"timeout_s": 2.0, "retries": 20, "late": "next"}
    assert fed.plan.ends_phase(last)
    for number in (0, 1):
        sites.start(number)
    with sites.workers(0, 1, learner=Slow()), sites.transport(last_rounds={last}, **limits) as transport:
        results = list(fed.run(START, transport))
        assert [out.client_id for out in results[-1].record.excluded] == [1]
        finish(transport, results[-1].state.adapter)
        heard = [told(sites, number) for number in (0, 1)]
        come.set()
    assert heard == [True, True]
