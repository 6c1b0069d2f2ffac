"""The folder of received updates: each is a file of its own, that only the server can read."""

import os
import stat

from fccl.adapters.recent import Checked
from fccl.adapters.stored import AdapterReader
from fccl.paths import ExchangePaths
from fccl.testing.toy import adapter
from fccl.transports.exchange.answers import GoodFile
from fccl.transports.exchange.begun import BegunReadings
from fccl.transports.exchange.received import Received
from fccl.transports.exchange.wire import AdapterFile


def good(*numbers):
    value = adapter(*numbers)
    content = bytearray(value.to_bytes())
    return GoodFile(Checked(content, value), AdapterFile.of(content).sha256, AdapterReader.like(value))


def received(folder):
    found = Received(folder, BegunReadings(folder, ExchangePaths(folder.parent)))
    found.make()
    return found


def test_what_is_received_again_under_a_name_leaves_the_other_names_of_the_first_file_as_they_were(tmp_path):
    folder = received(tmp_path / "received")
    folder.keep("update", good(1.0, 2.0, 3.0)).share(tmp_path / "kept", 0o600)
    again = folder.keep("update", good(4.0, 5.0, 6.0))
    assert (tmp_path / "kept").read_bytes() == adapter(1.0, 2.0, 3.0).to_bytes()
    assert again.load().sha256 == adapter(4.0, 5.0, 6.0).sha256
    assert stat.S_IMODE(os.stat(tmp_path / "received" / "update").st_mode) == 0o600


def test_the_next_round_holds_nothing_of_the_one_before_in_memory(tmp_path):
    folder = received(tmp_path / "received")
    kept = folder.keep("update", good(1.0, 2.0, 3.0))
    assert folder.recent.find(kept.path) is not None
    folder.empty()
    assert folder.recent.find(kept.path) is None
