"""A log folder that version 0.1 has written, stopped after three of four rounds: it goes on and is read as its own
version did.
"""

import shutil
from pathlib import Path

import pytest

from fccl.config import load_settings
from fccl.errors import FederationError, SettingsError
from fccl.federation.kept_rounds import kept_round, kept_rounds
from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.library.narrow import recorded_settings, settings_of
from fccl.records.run import RoundRecord
from fccl.storage.reading import read_records
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.transports.in_process import InProcessTransport
from fccl.view.runs import RunReader

RECORDED = Path(__file__).with_name("run_of_version_0_1")


@pytest.fixture
def folder(tmp_path):
    return RunFolder.at(Path(shutil.copytree(RECORDED, tmp_path / "logs")))


def a_run(folder):
    return Run(federation(clients=2, rounds=2), folder, lambda: START.adapter)


def records(folder):
    return list(read_records(folder.paths.progress, RoundRecord, lambda row: row.get("event") == "round"))


def test_it_goes_on_to_the_bytes_of_a_run_of_today(folder, tmp_path):
    transport, whole = InProcessTransport(ToyLearner(), shard), a_run(RunFolder.at(tmp_path / "whole"))
    expected = [result.record.adapter_sha256 for result in whole.rounds(transport)]
    run = a_run(folder)
    assert [result.record.round for result in run.rounds(transport, resume=True)] == [3]
    assert run.finish(transport).to_bytes() == whole.state.adapter.to_bytes()
    assert [record.adapter_sha256 for record in records(folder)] == expected
    assert [len(record.arrived) for record in records(folder)] == [0, 0, 0, 2]


def test_of_its_rounds_none_is_kept_but_those_of_today(folder):
    with pytest.raises(FederationError, match=r"the updates of round 1 are not in .*: no round is kept there"):
        kept_round(folder.paths, 0)
    list(a_run(folder).rounds(InProcessTransport(ToyLearner(), shard), resume=True))
    assert kept_rounds(folder.paths) == (3,)
    assert len(kept_round(folder.paths, 3).updates()) == 2


def test_its_settings_are_those_that_it_was_started_with(folder):
    assert not {"keep_updates_mb", "learn_examples"} & set(folder.info().settings)
    recorded = settings_of(folder.info(), keep_updates_mb="7")
    assert (recorded.num_clients, recorded.fed_rounds, recorded.keep_updates_mb) == (2, 2, 7)


def test_a_command_does_not_resume_it_since_its_data_has_no_learn_split(folder):
    with pytest.raises(SettingsError, match="begun by an earlier version, whose data has no learn split") as caught:
        recorded_settings(folder, load_settings(), {})
    assert "begin another one" in caught.value.hint


def test_it_is_shown_as_before(folder):
    view = RunReader(folder.paths).refresh()
    assert (view.run_id, view.unreadable, view.base.loss) == ("run", 0, 2.5)
    assert list(view.rounds["round"]) == [0, 1, 2]
    assert list(view.rounds["adapter_sha256"]) == [record.adapter_sha256 for record in records(folder)]
    assert [record.validation.loss for record in records(folder)] == [1.5] * 3
