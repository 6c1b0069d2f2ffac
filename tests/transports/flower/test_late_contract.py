"""The contract of late answers over Flower: a reply that comes after its round was closed is brought all the same."""

from contextlib import ExitStack, contextmanager

import pytest

from fccl.paths import ExchangePaths
from fccl.testing.late import HeldLearner, LateContract
from fccl.testing.processes import exchange_spec
from fccl.testing.transport import CLIENTS
from fccl.transports.flower import site
from fccl.transports.flower.transport import FlowerTransport
from tests.transports.exchange.test_late_contract import Scene
from tests.transports.exchange.test_server_contract import client_threads, finish_after
from tests.transports.flower.grids import super_nodes

TIMEOUT_S = 600.0


class OneClock(Scene):
    """Server and sites go by one clock: where a round's time is up at the server, it is up at its sites too."""

    def give_up(self):
        self.clock.ahead += TIMEOUT_S + 1.0


class TestFlowerLate(LateContract):
    @pytest.fixture
    def make_late(self, tmp_path, clock, monkeypatch):
        monkeypatch.setattr(site, "time", clock)

        @contextmanager
        def made(hold):
            folders = {number: tmp_path / f"site_{number}" for number in range(CLIENTS)}
            paths = ExchangePaths(tmp_path / "server")
            spec = exchange_spec(CLIENTS, late="next", timeout_s=TIMEOUT_S, stale_s=10 * TIMEOUT_S)
            with ExitStack() as held:
                for number, folder in folders.items():
                    held.enter_context(client_threads(folder, {number: HeldLearner(hold=hold)}, grace_s=0.1))
                nodes = held.enter_context(super_nodes(folders))
                with FlowerTransport(nodes.grid, paths, spec, tmp_path / "received", poll_s=0.01) as transport:
                    yield OneClock(transport, paths, clock)
                    finish_after(transport, paths)

        return made
