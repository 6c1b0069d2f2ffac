"""The contract of late answers over the exchange directory: clients in threads, signed, and in processes."""

from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from fccl.keys import create_keys, server_keys
from fccl.paths import ExchangePaths, KeyPaths
from fccl.testing.late import LATE, HeldLearner, LateContract
from fccl.testing.processes import client_processes, exchange_spec
from fccl.testing.transport import CLIENTS
from fccl.transports.exchange.server import ExchangeTransport
from tests.transports.exchange.test_server_contract import client_threads, finish_after
from tests.transports.exchange_tools import until


@dataclass
class Scene:
    transport: ExchangeTransport
    paths: ExchangePaths
    clock: object

    def give_up(self):
        self.clock.ahead += 10_000.0

    def wait_for(self, round_number):
        until(self.paths.flag(LATE, round_number).exists)


class TestThreadsLate(LateContract):
    keys = None

    @pytest.fixture
    def make_late(self, tmp_path, clock):
        @contextmanager
        def made(hold):
            paths, own = ExchangePaths(tmp_path / "exchange"), server_keys(self.keys) if self.keys else None
            spec = exchange_spec(CLIENTS, late="next", timeout_s=600.0, stale_s=600.0)
            transport = ExchangeTransport(paths, spec, tmp_path / "received", own)
            with self.clients(paths.root, {number: HeldLearner(hold=hold) for number in range(CLIENTS)}), transport:
                yield Scene(transport, paths, clock)
                finish_after(transport, paths)

        return made

    def clients(self, root, learners):
        return client_threads(root, learners, self.keys)


class TestSignedLate(TestThreadsLate):
    @pytest.fixture(autouse=True)
    def _with_keys(self, tmp_path):
        self.keys = KeyPaths(tmp_path / "keys")
        create_keys(self.keys, CLIENTS)


class TestProcessesLate(TestThreadsLate):
    def clients(self, root, learners):
        return client_processes(root, learners)
