"""A run that was given more rounds has the bytes of one that had them from its start, also if it is killed
meanwhile.
"""

import dataclasses
import shutil
from contextlib import closing, suppress
from itertools import islice

import pytest

from fccl.aggregation.rules import aggregation
from fccl.errors import FederationError, SettingsError
from fccl.federation.kept_rounds import kept_rounds
from fccl.federation.more_rounds import OtherRounds
from fccl.federation.run import Run
from fccl.federation.run_evaluation import run_adapters
from fccl.federation.run_folder import RunFolder
from fccl.paths import LogPaths
from fccl.records.run import RoundRecord, RunState
from fccl.specs import RoundPlan
from fccl.storage.reading import read_records, read_rows
from fccl.storage.temporary import is_temporary
from fccl.testing.toy import START, ToyLearner, shard
from fccl.tracking.listener import RunListener
from fccl.transports.in_process import InProcessTransport
from tests.examples import some
from tests.federation.test_run_kills import Killed, Kills
from tests.federation.test_watch import watched

RULES = {name: aggregation(name, "factors", 1) for name in ("fedavg", "fedadam", "scaffold")}


def a_plan(sft, va, **changes):
    return RoundPlan(fed_rounds=9, sft_rounds=sft, va_rounds=va, num_clients=4, clients_per_round=4, seed=7, **changes)


class Folder:
    """One log folder; each call is a process of its own that does all that is left, with these numbers of rounds."""

    def __init__(self, root, rule=None, **changes):
        self.folder, self.rule, self.changes, self.lines = RunFolder.at(root), rule, changes, []

    @property
    def paths(self) -> LogPaths:
        return self.folder.paths

    def __call__(self, sft, va, redo_va=False, rounds=None):
        fed = watched(self.rule, sft=sft, va=va, **self.changes)
        fed = dataclasses.replace(fed, plan=a_plan(sft, va, **self.changes))
        resume, other = self.folder.info() is not None and self.folder.state() is not None, None
        if resume:
            said = self.folder.info().settings
            before = a_plan(int(said["sft_rounds"]), int(said["va_rounds"]), **self.changes)
            other = OtherRounds(self.paths, self.folder.state(), before, fed.plan)
            other.require_possible(redo_va)
        settings = {"sft_rounds": str(sft), "va_rounds": str(va)}
        listener, transport = RunListener(), InProcessTransport(ToyLearner(), shard)
        listener.told = self.lines.append
        run = Run(fed, self.folder, lambda: START.adapter, listener, settings=settings)
        run.other_rounds = other if other and other.is_change else None
        with self.folder.held(self.folder.info()), closing(run.rounds(transport, resume)) as done:
            list(islice(done, rounds))
            return run.finish(transport).to_bytes() if rounds is None else b""

    def hashes(self):
        records = read_records(self.paths.progress, RoundRecord, lambda row: row.get("event") == "round")
        return [(record.round, record.phase, record.adapter_sha256) for record in records]


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("result_round", ["last", "best"])
def test_va_rounds_after_the_end_are_those_of_one_longer_run(tmp_path, rule, result_round):
    """With momentum, with control variates, and with a result that is not the last adapter."""
    one, two = (Folder(tmp_path / name, RULES[rule], result_round=result_round) for name in ("one", "two"))
    expected = one(2, 5)
    two(2, 1)
    two(2, 2)
    assert two(2, 5) == expected
    assert two.hashes() == one.hashes()
    assert kept_rounds(two.paths) == kept_rounds(one.paths) == tuple(range(7))
    assert two.folder.state().model_dump(exclude={"run_id"}) == one.folder.state().model_dump(exclude={"run_id"})


@pytest.mark.parametrize("rule", list(RULES))
def test_sft_rounds_after_the_end_go_back_to_the_last_sft_round_and_keep_the_old_ones(tmp_path, rule):
    one, two = (Folder(tmp_path / name, RULES[rule], result_round="best") for name in ("one", "two"))
    expected, before = one(4, 2), two(2, 3)
    earlier = two.hashes()
    assert two(4, 2, redo_va=True) == expected
    assert two.hashes() == one.hashes()
    assert kept_rounds(two.paths) == tuple(range(6))
    (kept,) = two.paths.archive.iterdir()
    old = Folder(kept)
    assert old.hashes() == earlier
    assert old.paths.global_final.read_bytes() == before
    assert kept_rounds(old.paths) == tuple(range(5))
    assert old.folder.state().finished


def test_a_run_of_one_phase_gets_the_other(tmp_path):
    one, two, three = (Folder(tmp_path / name) for name in ("one", "two", "three"))
    expected = one(2, 2)
    two(2, 0)
    assert list(run_adapters(two.paths)) == ["base", "SFT"]
    assert two(2, 2) == expected
    three(0, 3)
    assert three(2, 2, redo_va=True) == expected
    assert three.hashes() == two.hashes() == one.hashes()
    assert list(run_adapters(three.paths)) == ["base", "SFT", "FedVA"]


def test_a_run_that_is_not_at_its_end_takes_other_numbers_too(tmp_path):
    one, two, three = (Folder(tmp_path / name) for name in ("one", "two", "three"))
    expected = one(2, 2)
    two(4, 1, rounds=2)
    assert two(2, 2) == expected  # no more SFT rounds than are done: they are over
    three(1, 5, rounds=1)
    three(3, 5, rounds=1)  # one of SFT more, before any VA round
    assert three(2, 2) == expected
    assert three.hashes() == two.hashes() == one.hashes()
    assert not three.paths.archive.exists()


@pytest.mark.parametrize(
    ("now", "redo_va", "message", "hint"),
    [
        ((1, 2), False, "SFT_ROUNDS=1: 2 of these rounds are done already", "name at least 2"),
        ((2, 1), False, "VA_ROUNDS=1: 2 of these rounds are done already", "name at least 2"),
        ((3, 2), False, "SFT_ROUNDS=3: 2 VA rounds are done", "--redo-va"),
        ((2, 3), True, "--redo-va has no effect without more SFT rounds", "leave it out"),
    ],
)
def test_what_cannot_be_is_one_error_and_changes_nothing(tmp_path, now, redo_va, message, hint):
    folder = Folder(tmp_path)
    folder(2, 2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(SettingsError, match=message) as caught:
        folder(*now, redo_va=redo_va)
    assert hint in caught.value.hint
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_without_the_state_after_sft_there_is_no_way_back(tmp_path):
    folder = Folder(tmp_path)
    folder(1, 1)
    folder.paths.state_sft.unlink()  # as a run of an earlier version
    with pytest.raises(FederationError, match=r"state_sft.json is not there") as caught:
        folder(2, 1, redo_va=True)
    assert "--start-from" in caught.value.hint
    assert folder(1, 2)


def test_a_phase_that_patience_has_ended_stays_as_it_was(tmp_path):
    folder = Folder(tmp_path, patience=1)
    folder(12, 12)
    state = folder.folder.state()
    assert set(state.early) == {"sft", "va"}
    for now in ((12, 13), (13, 12)):
        with pytest.raises(SettingsError, match="PATIENCE has ended this phase after"):
            folder(*now, redo_va=False)
    assert folder(12, 12)  # nothing is left to do


def test_a_schedule_over_rounds_is_said_before(tmp_path):
    folder = Folder(tmp_path, lr_schedule="linear")
    folder(2, 1)
    assert not any("ROUND_LR_SCHEDULE" in line for line in folder.lines)
    folder(2, 2)
    assert [line for line in folder.lines if "ROUND_LR_SCHEDULE=linear goes over the planned rounds" in line]
    assert "The run has 2 SFT and 2 VA rounds from now on; it had 2 SFT and 1 VA." in folder.lines


def whole(folder):
    """No end of before beside the new one, every round once, and the record says what was done."""
    rows = list(read_rows(folder.paths.progress))
    assert rows[-1]["event"] == "finished"
    state = RunState.model_validate_json(folder.paths.state.read_text())
    assert [row["round"] for row in rows if row["event"] == "round"] == list(range(state.total_rounds))
    return folder.paths.global_final.read_bytes(), folder.hashes()


@pytest.mark.parametrize(
    ("now", "share"),
    [
        ((2, 2), "some"),
        pytest.param((2, 2), "all", marks=pytest.mark.slow),
        pytest.param((3, 1), "all", marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_write_while_rounds_are_added_the_same_command_ends_as_if_it_had_not_been(
    tmp_path, monkeypatch, now, share
):
    """`now` is one VA round more, and one SFT round more with VA done anew."""
    folder, redo = Folder(tmp_path / "logs"), now[0] > 2
    folder(2, 1)
    shutil.copytree(tmp_path / "logs", tmp_path / "before")
    kills = Kills(monkeypatch)
    folder(*now, redo_va=redo)
    points, expected = kills.seen, whole(folder)
    for at in some(range(points)) if share == "some" else range(points):
        kills.begin()
        shutil.rmtree(tmp_path / "logs")
        shutil.copytree(tmp_path / "before", tmp_path / "logs")
        kills.begin(at)
        with suppress(Killed):
            folder(*now, redo_va=redo)
        kills.begin()
        folder(*now, redo_va=redo)
        assert whole(folder) == expected, at
        assert not [path for path in folder.paths.root.rglob("*") if is_temporary(path.name)]


def test_an_error_names_the_setting_that_was_given(tmp_path):
    """FED_ROUNDS where no phase has a number of its own."""
    folder = Folder(tmp_path)
    folder(2, 2)
    plan = RoundPlan(fed_rounds=3, num_clients=4, clients_per_round=4, seed=7)
    other = OtherRounds(folder.paths, folder.folder.state(), a_plan(2, 2), plan)
    with pytest.raises(SettingsError, match="FED_ROUNDS=3: 2 VA rounds are done, and more SFT rounds") as caught:
        other.require_possible(redo_va=False)
    assert "--va-rounds alone" in caught.value.hint
