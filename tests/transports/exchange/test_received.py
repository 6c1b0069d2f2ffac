"""Received updates: in memory up to a bound, then each in a file of its own, that only the server can read."""

import os
import stat

import pytest

from fccl.adapters.recent import Checked, Recent
from fccl.adapters.stored import AdapterReader
from fccl.errors import StorageError
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


def received(folder, most_bytes):
    found = Received(folder, BegunReadings(folder, ExchangePaths(folder.parent)), Recent(most_bytes))
    found.make()
    return found


@pytest.mark.parametrize("most_bytes", [0, 10_000], ids=["in files", "in memory"])
def test_what_is_received_again_under_a_name_leaves_the_first_as_it_was(tmp_path, most_bytes):
    folder = received(tmp_path / "received", most_bytes)
    folder.keep("update", good(1.0, 2.0, 3.0)).share(tmp_path / "kept", 0o600)
    again = folder.keep("update", good(4.0, 5.0, 6.0))
    again.share(tmp_path / "kept again", 0o600)
    assert again.load().sha256 == adapter(4.0, 5.0, 6.0).sha256
    assert (tmp_path / "kept").read_bytes() == adapter(1.0, 2.0, 3.0).to_bytes()
    assert (tmp_path / "kept again").read_bytes() == adapter(4.0, 5.0, 6.0).to_bytes()
    assert stat.S_IMODE(os.stat(tmp_path / "kept").st_mode) == 0o600


def test_a_file_is_written_only_for_what_memory_has_no_room_for(tmp_path):
    first, second = good(1.0, 2.0, 3.0), good(4.0, 5.0, 6.0)
    folder = received(tmp_path / "received", len(first.checked.content))
    kept = [folder.keep("first", first), folder.keep("second", second)]
    assert [path.name for path in folder.folder.iterdir()] == ["second"]
    assert stat.S_IMODE(os.stat(folder.folder / "second").st_mode) == 0o600
    assert [each.load().sha256 for each in kept] == [first.checked.adapter.sha256, second.checked.adapter.sha256]
    assert [each.length for each in kept] == [len(first.checked.content)] * 2


def test_the_next_round_has_nothing_of_the_one_before(tmp_path):
    folder = received(tmp_path / "received", 10_000)
    kept = folder.keep("update", good(1.0, 2.0, 3.0))
    folder.empty()
    with pytest.raises(StorageError, match="does not exist"):
        kept.load()
