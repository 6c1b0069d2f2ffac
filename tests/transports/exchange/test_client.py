"""A client that finds no round says where it looks."""

from pathlib import Path

import pytest

from fccl.paths import ExchangePaths
from fccl.testing.toy import ToyLearner, shard
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.protocol import Listener


class Heard(Exception):
    """The first line that the client says; it ends the waiting."""


def hear(line):
    raise Heard(line)


def test_a_client_in_a_folder_without_a_run_names_the_folder_and_what_to_look_at(tmp_path, monkeypatch):
    """By its absolute path, whatever it was called."""
    monkeypatch.chdir(tmp_path)
    paths = ExchangePaths(Path("elsewhere"))
    paths.root.mkdir()
    client = ExchangeClient(paths, 0, ToyLearner(), shard, hint_s=0.0, listen=Listener(line=hear))
    with pytest.raises(Heard) as heard:
        next(client.rounds())
    assert f"no round so far in {tmp_path}/elsewhere" in str(heard.value)
    assert "EXCHANGE_DIR" in str(heard.value)
