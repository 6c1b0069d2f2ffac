"""What `fccl flower init` hands out, on loopback with TLS and node keys: the README's commands, who is let in, whose
answers count.
"""

from __future__ import annotations

import sys

import pytest

from fccl.testing.loopback import until
from fccl.transports.flower.node_keys import new_node_key
from tests.flower.bundles import bundles
from tests.flower.test_deployment import PATIENT, clean_environment, fccl, final, in_one_process

pytestmark = pytest.mark.flower


def test_the_readmes_commands_make_a_run_whose_bytes_are_one_process_s_and_let_nobody_else_in(tmp_path):
    """A SuperNode without a key, one with a key that nobody registered, and one whose registered key is another's."""
    expected = in_one_process(tmp_path / "alone", "--fed-rounds", "1")
    with bundles(tmp_path / "here", **clean_environment()) as deployment:
        place, link = deployment.folder, deployment.address
        made = ["flower", "init", "--sites", "4", "--hosts", "127.0.0.1", "--port", str(deployment.port)]
        fccl(place, *made, "--superlink", link)
        deployment.server()
        assert_refused(deployment)
        for number in (0, 1, 2):
            deployment.site(number)
        deployment.site(3, **{"client-id=3": "client-id=0"})  # it has its place in the fleet, not in the federation
        workers(deployment)
        bundle = ["--bundle", "flower/server", "--superlink", link]
        fccl(place, "flower", "run", *bundle, "--fed-rounds", "1", **PATIENT)
        assert final(place) == expected
        assert not list((deployment.paths.site(3).root / "exchange").glob("task_*")), "the impostor was sent a task"


def assert_refused(deployment):
    """The SuperLink lets neither in: both end, and say that they could not begin."""
    site = deployment.paths.site(0).root
    private, _ = new_node_key()
    (site / "other.key").write_bytes(private)
    keyless = {"--auth-supernode-private-key node.key ": "", "until ": "", "; do sleep 5; done": ""}
    unknown = {"node.key": "other.key", "until ": "", "; do sleep 5; done": ""}
    for name, changes in (("keyless", keyless), ("unknown", unknown)):
        deployment.site(0, name=name, **changes)
    for name in ("keyless", "unknown"):
        process = deployment.processes[name]
        until(lambda process=process: process.poll() is not None, f"the end of the SuperNode {name}", 120)
        said = (deployment.folder / f"{name}.log").read_text()
        assert deployment.processes.pop(name).returncode != 0, said
        assert "Failed to initialize the connection to the SuperLink" in said
    (site / "other.key").unlink()


def workers(deployment):
    """A worker for each site with the site's signing key; its shard is the server's, for all are on this host."""
    for number in (0, 1, 2):
        site = deployment.paths.site(number).root
        command = [sys.executable, "-m", "fccl", "client", "--client-id", str(number), "--data-dir", "data"]
        where = ["--exchange-dir", f"{site}/exchange", "--state-dir", f"{site}/state", "--keys-dir", f"{site}/keys"]
        deployment.start(f"client_{number}", [*command, *where])
