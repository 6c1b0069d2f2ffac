"""Over bad networks the bytes are those of one process, or a site is left out with the reason."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from fccl.storage.files import write_text
from fccl.testing.loopback import Loopback, until
from fccl.testing.processes import client_processes
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.transports.in_process import InProcessTransport
from tests.flower.network import Proxy, Wire, proxied, wires
from tests.flower.shaken import GIVES_UP_S, SITES, server

pytestmark = pytest.mark.flower
ROOT = Path(__file__).resolve().parent.parent.parent
CUT_S = 30.0
BUSY_S = 1200.0  # so long may a busy machine take for anything


@dataclass
class Network:
    """A SuperLink on this host, and three sites behind bad links, each with a worker."""

    folder: Path
    wires: list[Wire]
    proxies: list[Proxy]

    def opened(self, name: str, number: int) -> None:
        """Wait until a federation has opened a round."""
        until(server(self.folder / name).phase(number).exists, f"round {number} of {name}", BUSY_S)

    def ended(self, name: str) -> tuple[str, list[list[object]]]:
        """The final adapter of a federation, and who was left out: round, client, reason."""
        path = self.folder / name / "outcome.json"
        until(path.exists, f"the end of {name}", BUSY_S)
        said = json.loads(path.read_text())
        assert "error" not in said, said["error"]
        return said["adapter"], said["excluded"]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    deployment = Loopback(folder, own)
    with ExitStack() as held:
        links = held.enter_context(wires(SITES))
        held.callback(deployment.end)
        deployment.super_link()
        proxies = [held.enter_context(proxied(wire, deployment.port)) for wire in links]
        for number, (wire, proxy) in enumerate(zip(links, proxies, strict=True)):
            site = folder / f"site_{number}"
            site.mkdir()
            held.enter_context(client_processes(site, {number: ToyLearner()}, grace_s=3600.0))
            deployment.super_node(number, site, f"{wire.host}:{proxy.port}", wire.prefix)
        write_text(folder / "request.json", "{}\n")
        deployment.submit(folder / "request.json", "tests.flower.shaken")
        yield Network(folder, links, proxies)


def alone(rounds, without=()):
    """The final adapter in one process, where these clients fail."""
    fed = federation(SITES, rounds, sft_rounds=rounds, va_rounds=0)
    *_, last = fed.run(START, InProcessTransport(ToyLearner(frozenset(without)), shard))
    return last.state.adapter.to_bytes().hex()


def test_delay_resets_and_half_a_minute_without_a_link_change_no_byte(network):
    network.opened("patient", 1)
    network.wires[1].cut()
    time.sleep(CUT_S)
    assert not server(network.folder / "patient").flag(1, 1).exists()
    network.wires[1].mend()
    assert network.ended("patient") == (alone(2), [])
    assert sum(proxy.resets for proxy in network.proxies) >= 1


def test_a_site_that_stays_cut_off_is_left_out_with_the_reason(network):
    network.opened("brief", 0)
    network.wires[2].cut()
    adapter, ((number, client_id, reason),) = network.ended("brief")
    assert adapter == alone(1, without={2})
    assert (number, client_id) == (0, 2)
    assert reason.startswith(f"no SuperNode has said for {GIVES_UP_S:g} s that it is the site of client 2")
