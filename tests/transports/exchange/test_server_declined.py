"""A client that takes no part in a phase says so once; nobody waits for it, asks it again, or counts it as failed."""

import threading

import pytest

from fccl.messages import ClientFailure, ClientUpdate, declined
from fccl.testing.toy import ToyLearner, shard
from fccl.testing.transport import task
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.wire import FailureFile
from tests.transports.exchange_tools import clients, finish, fit

DECLINED = ClientFailure(1, "declines FedIT", declines=True)


def committed(paths, opened):
    """Client 0 has trained and client 1 has declined, and both are gone."""
    update = ToyLearner().fit(task(), shard(0), lambda status: None)
    ExchangeClient(paths, 0, ToyLearner(), shard).commit(opened, update)
    declining = ExchangeClient(paths, 1, ToyLearner(), shard)
    declining.commit(opened, DECLINED)
    return declining


def test_a_server_that_starts_anew_hears_it_from_the_directory(paths, transport):
    with transport() as exchange:
        committed(paths, exchange.open(task(), (0, 1)))
    for _ in range(2):
        with transport(timeout_s=600.0) as exchange:
            found = fit(exchange)
        assert isinstance(found[0], ClientUpdate)
        assert found[1] == DECLINED


def test_it_is_not_asked_again_when_too_few_answer(paths, transport):
    with transport(timeout_s=600.0, quorum=2, retries=3) as exchange:
        committed(paths, exchange.open(task(), (0, 1)))
        before = paths.flag(1, 0).stat()
        assert fit(exchange)[1] == DECLINED
        assert (paths.flag(1, 0).stat().st_ino, paths.flag(1, 0).stat().st_mtime_ns) == (
            before.st_ino,
            before.st_mtime_ns,
        )


def test_others_are_asked_again_and_it_is_not(paths, transport):
    learners = {0: ToyLearner(broken=frozenset({0})), 1: ToyLearner(errors={1: declined("sft")})}
    with clients(paths, learners, heartbeat_s=0.05), transport(timeout_s=600.0, retries=1) as exchange:
        found = fit(exchange)
        finish(exchange)
    assert found == {0: ClientFailure(0, "the loss is not finite"), 1: DECLINED}
    assert learners[0].calls == [(0, 0), (0, 0)]
    assert learners[1].calls == [(0, 1)]


def test_started_again_it_says_so_again_or_trains_if_it_now_can(paths, transport):
    with transport(timeout_s=600.0) as exchange:
        opened = exchange.open(task(), (0, 1))
        declining = committed(paths, opened)
        assert declining.is_answered(opened)
        again = ExchangeClient(paths, 1, ToyLearner(), shard, grace_s=0.0)
        assert not again.is_answered(opened)
        worker = threading.Thread(target=again.run)
        worker.start()
        while again.learner.calls != [(0, 1)] or not again.is_answered(opened):
            worker.join(0.01)
        assert isinstance(fit(exchange)[1], ClientUpdate)
        finish(exchange)
        worker.join()


def test_a_failure_that_is_none_has_the_bytes_that_it_always_had():
    said = {"version": 2, "run_id": "run", "round": 0, "phase": "sft", "client_id": 1, "base_sha256": "0" * 64}
    assert b"declines" not in FailureFile(**said, error="gone").written()
    assert b'"declines":true' in FailureFile(**said, error="declines FedIT", declines=True).written()


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_the_reason_is_the_phases_name(phase):
    assert str(declined(phase)) == {"sft": "declines FedIT", "va": "declines FedVA"}[phase]
