"""The contract over the exchange directory: with clients in threads, and with clients that are processes."""

import threading
from contextlib import contextmanager

import pytest

from fccl.keys import client_keys, create_keys, server_keys
from fccl.paths import ExchangePaths, KeyPaths
from fccl.testing.processes import client_processes, exchange_spec
from fccl.testing.toy import adapter, shard
from fccl.testing.toy_requests import toy_services
from fccl.testing.transport import CLIENTS, TransportContract, toy_learner
from fccl.transports.exchange import watch
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.server import ExchangeTransport


@contextmanager
def client_threads(root, learners, keys=None, **changes):
    """Clients in threads of this process; they end when the run is done."""
    clients = [
        ExchangeClient(
            ExchangePaths(root),
            number,
            learner,
            shard,
            client_keys(keys, number) if keys else None,
            **({"heartbeat_s": 0.5} | changes),
        )
        for number, learner in learners.items()
    ]
    threads = [threading.Thread(target=client.run, daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    yield clients
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def finish_after(transport, paths):
    """End the run with the round after the last one, as orchestrators do."""
    opened = [name.round for path in paths.root.iterdir() if (name := paths.name(path.name)) and name.kind == "phase"]
    transport.finish("run", max(opened, default=-1) + 1, adapter())


class TestThreads(TransportContract):
    watch = "auto"
    keys = None

    @pytest.fixture
    def make(self, tmp_path):
        @contextmanager
        def made(broken=(), errors=None):
            paths = ExchangePaths(tmp_path / "exchange")
            learners = {number: toy_learner(broken, errors) for number in range(CLIENTS)}
            own = server_keys(self.keys) if self.keys else None
            transport = ExchangeTransport(paths, exchange_spec(CLIENTS, watch=self.watch), tmp_path / "received", own)
            with self.clients(paths.root, learners, toy_services(broken)), transport:
                yield transport
                finish_after(transport, paths)

        return made

    def clients(self, root, learners, services):
        return client_threads(root, learners, self.keys, watch=self.watch, services=services)


class TestPolling(TestThreads):
    watch = "poll"

    @pytest.fixture(autouse=True)
    def _often(self, monkeypatch):
        monkeypatch.setattr(watch, "POLL_S", 0.02)


class TestSigned(TestThreads):
    @pytest.fixture(autouse=True)
    def _with_keys(self, tmp_path):
        self.keys = KeyPaths(tmp_path / "keys")
        create_keys(self.keys, CLIENTS)


class TestProcesses(TestThreads):
    def clients(self, root, learners, services):
        return client_processes(root, learners, services=services)
