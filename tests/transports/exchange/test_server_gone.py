"""The exchange directory goes while server and clients are at work in it: one error each, and none of them waits for
ever.
"""

import os
import shutil
import threading

import pytest

from fccl.errors import StorageError
from fccl.storage.temporary import make_file
from fccl.testing.toy import ToyLearner, shard
from fccl.transports.exchange.client import ExchangeClient
from tests.transports.exchange_tools import fit, until


def gone(root, fate):
    """What somebody does to the directory."""
    root.rename(root.with_name("moved"))
    if fate == "removed":
        shutil.rmtree(root.with_name("moved"))
    elif fate == "replaced":
        root.mkdir()
    elif fate == "a file":
        root.touch()
    elif fate == "a link":
        root.symlink_to("/tmp")


@pytest.mark.parametrize("fate", ["removed", "moved", "replaced", "a file", "a link"])
def test_a_server_whose_directory_goes_ends_with_one_error(paths, transport, clock, fate):
    with transport(timeout_s=60.0, stale_s=60.0) as exchange:
        errors = []

        def serve():
            try:
                fit(exchange)
            except StorageError as error:
                errors.append(error)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        until(paths.phase(0).exists)
        gone(paths.root, fate)
        thread.join(60)
        assert not thread.is_alive()
        assert len(errors) == 1
        with pytest.raises(StorageError, match="was removed or replaced while this process was at work in it"):
            exchange.require_here()


@pytest.mark.parametrize("fate", ["removed", "moved", "replaced", "a file", "a link"])
def test_a_client_whose_directory_goes_ends_with_one_error(paths, fate):
    errors = []

    def work():
        try:
            ExchangeClient(paths, 0, ToyLearner(), shard, heartbeat_s=0.2, watch="poll").run()
        except StorageError as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    until(paths.status(0).exists)
    until(paths.bell.exists)
    gone(paths.root, fate)
    thread.join(60)
    assert not thread.is_alive()
    assert len(errors) == 1


def test_server_and_clients_sweep_what_they_left_and_nobody_elses(paths, transport):
    names = (paths.task(0), paths.global_adapter(1), paths.update(0, 0), paths.status(1))
    paths.root.mkdir(exist_ok=True)
    for path in names:
        os.close(make_file(path)[0])
    with transport():
        left = sorted(name.rsplit(".", 2)[0] for name in os.listdir(paths.root) if name.endswith(".tmp"))
    assert left == sorted(f".{path.name}" for path in names[2:])
