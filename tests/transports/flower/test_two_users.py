"""A site whose SuperNode has a user of its own, as docs/flower.md says: one group, one folder, umask 002."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent.parent

SCRIPT = """
import os, sys
from pathlib import Path
from fccl.paths import ExchangePaths
from fccl.testing.processes import exchange_spec
from fccl.testing.toy import START, ToyLearner, shard
from fccl.testing.transport import task
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.exchange.server import ExchangeTransport
from fccl.transports.flower.site import Site

folder, NODE, WORKER, GROUP = Path(sys.argv[1]), 60001, 60002, 60003
site = ExchangePaths(folder / "exchange")

def rounds():
    server = ExchangePaths(folder / "server")
    with ExchangeTransport(server, exchange_spec(1), folder / "received") as transport:
        for number in (0, 1):
            transport.open(task(number), (0,))
            yield files(server, number)
        transport.finish("run", 2, START.adapter)
        yield files(server, 2)

def files(paths, number):
    named = paths.global_adapter(number), paths.task(number), paths.phase(number)
    return {path.name: path.read_bytes() for path in named}

def child(user, work):
    number = os.fork()
    if number == 0:
        try:
            os.setgroups([]), os.setgid(GROUP), os.setuid(user), os.umask(0o002)
            work()
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return number

def node():
    *asked, done = HELD
    own = Site(site, 0)
    for number, given in enumerate(asked):
        own.lay(given, site.flag(0, number).name)
        found = own.wait(given, site.flag(0, number).name, 60.0, 60.0)
        expected = ToyLearner().fit(task(number), shard(0), lambda status: None).adapter.load()
        assert found[site.update(0, number).name] == expected.to_bytes()
    own.lay(done)

def worker():
    ExchangeClient(site, 0, ToyLearner(), shard, heartbeat_s=0.5, grace_s=0.1).run()

HELD = list(rounds())
site.root.mkdir(), os.chown(site.root, 0, GROUP), site.root.chmod(0o2770)
trains, lays = child(WORKER, worker), child(NODE, node)
if os.waitpid(lays, 0)[1]:
    os.kill(trains, 9)
sys.exit(os.waitpid(trains, 0)[1] != 0)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be two other users")
def test_a_supernode_of_another_user_and_its_worker_share_one_folder():
    with tempfile.TemporaryDirectory() as text:  # pytest's own folders are closed to other users
        Path(text).chmod(0o711)
        own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, text],
            env=os.environ | own,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
