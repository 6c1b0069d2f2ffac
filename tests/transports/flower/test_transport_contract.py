"""The contract over Flower: a real link state and ClientApp, and a worker for each site over its own directory."""

from contextlib import ExitStack, contextmanager

import pytest

from fccl.keys import create_keys, server_keys
from fccl.paths import ExchangePaths, KeyPaths
from fccl.testing.processes import exchange_spec
from fccl.testing.toy_requests import toy_services
from fccl.testing.transport import CLIENTS, TransportContract, toy_learner
from fccl.transports.flower.transport import FlowerTransport
from tests.transports.exchange.test_server_contract import client_threads, finish_after
from tests.transports.flower.grids import super_nodes


class TestFlower(TransportContract):
    keys = None

    @pytest.fixture
    def make(self, tmp_path):
        @contextmanager
        def made(broken=(), errors=None):
            # The contract's runs share their name: a worker that starts must not meet the end of the one before.
            root = tmp_path / f"made_{len(list(tmp_path.glob('made_*')))}"
            root.mkdir()
            folders = {number: root / f"site_{number}" for number in range(CLIENTS)}
            own = server_keys(self.keys) if self.keys else None
            paths, spec = ExchangePaths(root / "server"), exchange_spec(CLIENTS)
            with ExitStack() as held:
                for number, folder in folders.items():
                    learners, services = {number: toy_learner(broken, errors)}, toy_services(broken)
                    held.enter_context(client_threads(folder, learners, self.keys, services=services, grace_s=0.1))
                nodes = held.enter_context(super_nodes(folders))
                with FlowerTransport(nodes.grid, paths, spec, root / "received", own, poll_s=0.01) as transport:
                    yield transport
                    finish_after(transport, paths)

        return made


class TestSigned(TestFlower):
    """The signatures are those of server and clients, whatever carries them."""

    @pytest.fixture(autouse=True)
    def _with_keys(self, tmp_path):
        self.keys = KeyPaths(tmp_path / "keys")
        create_keys(self.keys, CLIENTS)
