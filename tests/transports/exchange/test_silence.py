"""A client that has heard nothing new for long says so once in each round: the run's end may not have reached it."""

from __future__ import annotations

import pytest

from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.testing.transport import task
from fccl.transports.exchange import silence
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.silence import QUIET_S, Silence
from fccl.transports.protocol import Listener
from tests.transports.exchange.test_server_contract import finish_after
from tests.transports.exchange_tools import clients, until


@pytest.fixture
def opened(transport):
    """The tasks of two rounds, one after the other, and the end of the run."""
    with transport() as exchange:
        tasks = [exchange.open(task(number), (0, 1)) for number in (0, 1)]
        exchange.finish("run", 2, task(1).adapter)
    return tasks


def test_the_hint_comes_when_nothing_is_new_for_long_and_anything_new_puts_it_off(opened, clock, monkeypatch):
    monkeypatch.setattr(silence, "time", clock)
    quiet = Silence(QUIET_S)
    assert quiet.line(opened[0]) == ""
    clock.ahead += QUIET_S - 60.0
    assert quiet.line(opened[0]) == ""
    quiet.broken()
    clock.ahead += QUIET_S - 60.0
    assert quiet.line(opened[0]) == ""
    clock.ahead += 61.0
    assert quiet.line(opened[0]).startswith("nothing new for 15 minutes since round 1 (sft) of run run: ")
    assert quiet.line(opened[1]) == "", "another round is news"
    clock.ahead += QUIET_S
    assert "since round 2 " in quiet.line(opened[1])


def test_without_an_open_round_there_is_no_hint(opened, paths):
    client = ExchangeClient(paths, 0, ToyLearner(), shard)
    end, quiet = client.newest(), Silence(0.0)
    assert end.work is None
    for none in (None, end):
        assert quiet.line(none) == quiet.line(none) == ""


def test_a_client_whose_server_is_gone_says_so_once_and_hears_the_end_all_the_same(paths, transport):
    lines = []

    def hints():
        return [line for line in lines if "the run is over and this client has not heard of it" in line]

    with (
        clients(paths, {0: ToyLearner()}, quiet_s=0.0, heartbeat_s=0.01, listen=Listener(line=lines.append)),
        transport() as exchange,
    ):
        exchange.open(task(), (0,))
        until(hints)
        until(lambda: paths.flag(0, 0).exists())
        finish_after(exchange, paths)
    assert len(hints()) == 1


def test_a_run_without_long_waiting_has_no_hint(paths, transport):
    lines, fed = [], federation(1, rounds=2)
    with clients(paths, {0: ToyLearner()}, listen=Listener(line=lines.append)), transport() as exchange:
        results = list(fed.run(START, exchange))
        exchange.finish(fed.run_id, len(results), results[-1].state.adapter)
    assert lines
    assert not [line for line in lines if "nothing new" in line]
