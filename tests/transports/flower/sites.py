"""Two sites on a real grid in memory, their workers, and the transport to them."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager

from fccl.keys import server_keys
from fccl.messages import ClientFailure, ClientUpdate
from fccl.paths import ExchangePaths
from fccl.testing.processes import exchange_spec
from fccl.testing.toy import ToyLearner, shard
from fccl.testing.transport import answers, task
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.flower.client_app import app
from fccl.transports.flower.transport import FlowerTransport
from tests.transports.exchange.test_server_contract import client_threads, finish_after


class Sites:
    """Sites 0 and 1 with their workers, and the transport to them."""

    lost_s, grid = 60.0, None

    def __init__(self, folder, nodes):
        self.log = folder / "sites.json"
        self.folder, self.nodes, self.paths = folder, nodes, ExchangePaths(folder / "server")

    def site(self, number):
        return self.folder / f"site_{number}"

    def start(self, number, answer=app, folder=None, key=b""):
        return self.nodes.start(number, folder or self.site(number), answer, key)

    @contextmanager
    def transport(self, keys=None, nodes_s=60.0, node_keys=None, last_rounds=(), **spec):
        limits = {"timeout_s": 60.0, "stale_s": 60.0} | spec
        own = exchange_spec(2, **limits)
        received = self.folder / "received"
        times = {"poll_s": 0.01, "nodes_s": nodes_s, "lost_s": self.lost_s}
        grid = self.grid or self.nodes.grid
        with FlowerTransport(
            *(grid, self.paths, own, received, keys),
            **times,
            node_keys=node_keys,
            sites=self.log,
            last_rounds=last_rounds,
        ) as transport:
            yield transport

    @contextmanager
    def workers(self, *numbers, keys=None, learner=None):
        """Workers that end with the block, whatever their site has been told."""
        with ExitStack() as held:
            for number in numbers:
                held.enter_context(
                    client_threads(self.site(number), {number: learner or ToyLearner()}, keys, grace_s=0.1)
                )
                held.callback(self._end, number, server_keys(keys) if keys else None)
            yield

    def _end(self, number, keys):
        own = ExchangePaths(self.site(number))
        with ExchangeTransport(own, exchange_spec(2), self.folder / "unread", keys) as transport:
            finish_after(transport, own)


def expected(number):
    return ToyLearner().fit(task(), shard(number), lambda status: None).adapter.load().sha256


def good(answer, number):
    return isinstance(answer, ClientUpdate) and answer.adapter.load().sha256 == expected(number)


def require_left_out(sites, answer, reason):
    """A site that answers like this fails three times with that reason, and the other one counts."""
    sites.start(0), sites.start(1, answer)
    with sites.workers(0, 1), sites.transport() as transport:
        found = answers(transport, (0, 1))
        assert good(found[0], 0)
    assert isinstance(found[1], ClientFailure)
    assert found[1].reason.startswith(f"its site has failed 3 times: {reason}")
