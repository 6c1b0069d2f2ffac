"""The end of the line: what the server sends lies there to the byte, and only the worker's own answer goes back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys

import pytest

from fccl.errors import UpdateRejected
from fccl.paths import ExchangePaths
from fccl.storage.reading import identity
from fccl.testing.toy import ToyLearner, shard
from fccl.testing.transport import task
from fccl.transports.exchange.client import ExchangeClient
from fccl.transports.flower.site import NoAnswer, Site


@pytest.fixture
def site(tmp_path):
    return Site(ExchangePaths(tmp_path / "site"), 1)


@pytest.fixture
def rounds(paths, transport):
    """`rounds(number)`: the files of an open round, in their order, and what the server has opened."""

    def opened(number=0, run="run", clients=(0, 1)):
        asked = dataclasses.replace(task(number), run_id=run)
        with transport() as exchange:
            said = exchange.open(asked, clients)
        names = paths.global_adapter(number), paths.task(number), paths.phase(number)
        return {path.name: path.read_bytes() for path in names}, said

    return opened


def answer_of(site, opened, number=0):
    """The worker's answer, as it commits it."""
    client = ExchangeClient(site.paths, site.client_id, ToyLearner(), shard)
    client.commit(opened, ToyLearner().fit(task(number), shard(site.client_id), lambda status: None))


def names(site):
    return {path.name for path in site.paths.root.iterdir() if path.is_file()}


def test_files_lie_there_to_the_byte_and_a_second_time_changes_nothing(site, rounds):
    files, _ = rounds()
    site.lay(files, "done_1_0.flag")
    assert {name: (site.paths.root / name).read_bytes() for name in files} == files
    before = {name: identity(site.paths.root / name) for name in files}
    site.lay(files, "done_1_0.flag")
    assert {name: identity(site.paths.root / name) for name in files} == before


def test_the_next_round_takes_the_place_of_the_one_before(site, rounds):
    first, opened = rounds(0)
    site.lay(first, "done_1_0.flag")
    answer_of(site, opened)
    second, _ = rounds(1)
    site.lay(second, "done_1_1.flag")
    assert names(site) == set(second)


def test_the_answer_is_the_worker_s_to_the_byte_its_flag_last(site, rounds):
    files, opened = rounds()
    site.lay(files, "done_1_0.flag")
    assert site.answer(files, "done_1_0.flag") is None
    answer_of(site, opened)
    found = site.answer(files, "done_1_0.flag")
    expected = ["client_1_round_0.safetensors", "contrib_client_1_round_0.json", "done_1_0.flag"]
    assert list(found) == expected
    assert found == {name: (site.paths.root / name).read_bytes() for name in expected}


def test_the_same_round_again_keeps_its_answer(site, rounds):
    files, opened = rounds()
    site.lay(files, "done_1_0.flag")
    answer_of(site, opened)
    more, _ = rounds(clients=(1,))  # other clients are asked: the same work for this one
    site.lay(more, "done_1_0.flag")
    assert site.answer(more, "done_1_0.flag") is not None


def test_an_answer_to_another_run_is_none(site, rounds):
    files, opened = rounds()
    site.lay(files, "done_1_0.flag")
    answer_of(site, opened)
    other, _ = rounds(run="other")
    site.lay(other, "done_1_0.flag")
    assert site.answer(other, "done_1_0.flag") is None


def test_a_refused_answer_is_taken_back_and_no_other(site, rounds):
    files, opened = rounds()
    site.lay(files, "done_1_0.flag")
    answer_of(site, opened)
    site.lay(files, "done_1_0.flag", ["0" * 64])
    assert site.answer(files, "done_1_0.flag") is not None
    spoken = site.paths.contribution(1, 0).read_bytes()
    site.lay(files, "done_1_0.flag", [hashlib.sha256(spoken).hexdigest()])
    assert names(site) == set(files)


def test_another_run_begins_with_an_empty_directory_and_the_same_one_with_what_is_there(site, rounds):
    files, _ = rounds()
    site.lay(files, "done_1_0.flag")
    site.begin("run")
    assert names(site) == set(files)
    site.begin("later")
    assert names(site) == set()


@pytest.mark.parametrize("name", ["../evil", "done_1_0.flag", "status_1.json", "client_1_round_0.safetensors", "x"])
def test_no_server_writes_another_file(site, name):
    with pytest.raises(UpdateRejected, match="is not a file that belongs there"):
        site.lay({name: b"x"})
    assert not site.paths.root.exists()


@pytest.mark.parametrize("name", ["done_2_0.flag", "phase_0.txt", "reply_0_0_evaluate_0.json"])
def test_no_other_client_s_answer_is_asked_of_a_site(site, name):
    with pytest.raises(UpdateRejected):
        site.require_own(name)


def test_a_worker_that_is_not_there_is_not_waited_for(site, rounds):
    files, _ = rounds()
    site.lay(files, "done_1_0.flag")
    with pytest.raises(NoAnswer, match=r"no worker of client 1 has been at work there for 0.05 s"):
        site.wait(files, "done_1_0.flag", 600.0, 0.05)


def test_a_worker_that_lives_is_waited_for_until_the_deadline(site, rounds):
    files, _ = rounds()
    site.lay(files, "done_1_0.flag")
    with pytest.raises(NoAnswer, match=r"its worker has not answered within 0.05 s"):
        site.wait(files, "done_1_0.flag", 0.05, 600.0)


def test_a_damaged_contribution_is_no_answer(site, rounds):
    files, opened = rounds()
    site.lay(files, "done_1_0.flag")
    answer_of(site, opened)
    for text in ("{", json.dumps([1]), json.dumps({"run_id": "run", "round": 0, "base_sha256": "0" * 64})):
        site.paths.contribution(1, 0).write_text(text)
        assert site.answer(files, "done_1_0.flag") is None


def test_the_bridge_loads_no_torch():
    """It is started anew for every message: with torch that is most of a round."""
    code = "import sys, fccl.transports.flower.client_app; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
