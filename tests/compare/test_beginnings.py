from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.compare import trial as trials
from fccl.compare.beginnings import beginnings, course, ended
from fccl.compare.flat import PATIENCE
from fccl.compare.methods import METHODS
from fccl.compare.scenarios import SCENARIOS
from fccl.compare.store import keep, runs, to_do
from fccl.compare.trial import Trial, results_of, run_trial
from fccl.errors import TrainingError
from fccl.specs.codecs import CodecSpec
from tests.compare.test_trial import timeless
from tests.compare.test_verdicts import SPEC


def lengthened(trial, rounds):
    """The same trial with so many rounds, and with its own result on the way."""
    spec = trial.spec.with_rounds(rounds)
    return replace(trial, spec=spec, begins=beginnings(spec, [trial.spec]))


@pytest.mark.parametrize(
    ("scenario", "method"),
    [
        ("sign-flip", "tempered"),
        ("flipped", "fedlaw-gamma"),
        ("come-and-go", "fedavg-server"),
        ("shuffled", "scaffold"),
        ("clean-va", "fedadam"),
    ],
)
def test_the_first_rounds_of_a_longer_trial_are_the_shorter_one_to_the_bit(workshop, tmp_path, scenario, method):
    """Each in a folder of its own, so that no update is taken from the other."""
    one, other = workshop(tmp_path / "one"), workshop(tmp_path / "other")
    short = one.planner.trial(SCENARIOS[scenario], METHODS[method], 42)
    begun, long = results_of(one.resources, lengthened(short, 3))
    alone = run_trial(other.resources, other.planner.trial(SCENARIOS[scenario], METHODS[method], 42))
    assert (len(begun.rounds), len(long.rounds), begun.seconds) == (2, 3, 0.0)
    assert timeless(begun) == timeless(alone)
    assert long.adapter_sha256 != begun.adapter_sha256


@pytest.mark.parametrize("broken", [1, 2])
def test_a_shorter_trial_has_the_trouble_of_its_own_rounds(workshop, tmp_path, monkeypatch, broken):
    """Nobody trains from some round on: the first of two is done, or both."""

    class Breaks(trials.CachedLearner):
        def fit(self, task, shard, on_status):
            if task.round >= broken:
                raise TrainingError("the gradient is not finite")
            return super().fit(task, shard, on_status)

    monkeypatch.setattr(trials, "CachedLearner", Breaks)
    one, other = workshop(tmp_path / "one"), workshop(tmp_path / "other")
    short = one.planner.trial(SCENARIOS["clean-iid"], METHODS["fedavg"], 42)
    begun, long = results_of(one.resources, lengthened(short, 4))
    alone = run_trial(other.resources, other.planner.trial(SCENARIOS["clean-iid"], METHODS["fedavg"], 42))
    assert "ended early" in long.trouble[-1]
    assert bool(begun.trouble) == (broken < 2)
    assert timeless(begun) == timeless(alone)


def test_a_run_until_flat_has_the_results_of_the_trials_that_it_is(workshop, tmp_path):
    """At a rate that teaches nothing it is flat after the first round and three that bring nothing more."""
    one, other = (workshop(tmp_path / name, sft_lr=1e-9) for name in ("one", "other"))
    flat = SCENARIOS["clean-iid"].unhurried
    found = results_of(one.resources, one.planner.measure(flat, 42))
    for result in found:
        keep(one.paths, result)
    assert [(len(each.rounds), each.spec.until_flat) for each in found] == [(2, False), (4, False), (4, True)]
    assert 1 + PATIENCE == 4
    same = [one.planner.trial(each, METHODS["fedavg"], 42) for each in (SCENARIOS["clean-iid"], flat)]
    assert to_do(one.paths, same) == []
    assert [trial.spec for trial in same] == [each.spec for each in found[:2]]
    assert [timeless(each) for each in found[:2]] == [timeless(run_trial(other.resources, each)) for each in same]


def test_a_run_until_flat_that_broke_down_is_no_trial_of_so_many_rounds():
    until = SPEC.model_copy(update={"until_flat": True}).with_rounds(24).model_copy(update={"until_flat": True})
    begins = beginnings(until, [SPEC.with_rounds(3)])
    assert ended(until, begins, [3.0, 2.0]) == begins
    assert ended(until, begins, [1.0] * 4) == (*begins, SPEC.with_rounds(4))
    assert ended(until, begins, [float(24 - number) for number in range(24)]) == (*begins, SPEC.with_rounds(24))
    assert ended(until, beginnings(until, [SPEC.with_rounds(6)]), [1.0] * 4) == (SPEC.with_rounds(4),)


def test_a_trial_whose_rounds_depend_on_their_number_begins_like_no_other():
    falling = SPEC.model_copy(update={"plan": SPEC.plan.model_copy(update={"lr_schedule": "cosine"})})
    coded = SPEC.model_copy(update={"train": SPEC.train.model_copy(update={"codec": CodecSpec(name="int8")})})
    for spec in (falling, coded, SPEC.model_copy(update={"way": "alone"})):
        assert beginnings(spec.with_rounds(5), [spec]) == ()
    assert beginnings(SPEC.with_rounds(5), [SPEC]) == (SPEC,)


def test_va_trials_begin_with_the_same_round_whatever_their_length():
    spec = SPEC.model_copy(update={"phase": "va", "plan": SPEC.plan.model_copy(update={"fed_rounds": 3})})
    assert {spec.with_rounds(count).plan.first_round("va") for count in (1, 3, 9)} == {3}
    assert spec.with_rounds(9).with_rounds(3) == spec


LENGTHS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=12)


@given(LENGTHS)
def test_every_trial_is_run_or_is_the_beginning_of_one_that_is(lengths):
    listed = [
        Trial(name, "fedavg", 1, SPEC.model_copy(update={"start": name}).with_rounds(count), data=None)
        for name, count in lengths
    ]
    found = runs(listed)
    assert found.keys() == {trial.spec.key for trial in listed}
    assert len({run.spec.key for run in found.values()}) == len({name for name, _ in lengths})
    for trial in listed:
        run = found[trial.spec.key]
        assert course(run.spec) == course(trial.spec)
        assert trial.spec in (*run.begins, run.spec)
