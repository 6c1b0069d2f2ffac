"""SFT rounds are 0 ... s-1, VA rounds s ... s+v-1, and s+v is the end; either phase may have no round."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fccl.config import load_settings
from fccl.errors import SettingsError
from fccl.federation.kept_rounds import kept_round
from fccl.federation.run import Run
from fccl.federation.run_evaluation import run_adapters
from fccl.federation.run_folder import RunFolder
from fccl.specs import RoundPlan
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.tracking.listener import RunListener
from fccl.transports.in_process import InProcessTransport
from tests.examples import few

COUNTS = st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(any)


def a_plan(sft, va):
    return RoundPlan(fed_rounds=9, sft_rounds=sft, va_rounds=va, num_clients=3, clients_per_round=2, seed=1)


def with_rounds(sft, va):
    fed = federation(clients=2)
    return dataclasses.replace(fed, plan=fed.plan.model_copy(update={"sft_rounds": sft, "va_rounds": va}))


class Spy(ToyLearner):
    def __init__(self):
        super().__init__()
        self.tasks = []

    def fit(self, task, shard, on_status):
        self.tasks.append(task)
        return super().fit(task, shard, on_status)


@given(COUNTS)
def test_each_phase_has_its_own_number_of_rounds_one_after_the_other(counts):
    sft, va = counts
    plan = a_plan(sft, va)
    assert [plan.phase_of(number) for number in range(plan.total_rounds)] == ["sft"] * sft + ["va"] * va
    first = {0, sft} & set(range(plan.total_rounds))
    assert {number for number in range(plan.total_rounds) if plan.begins_phase(number)} == first
    assert (plan.first_round("sft"), plan.first_round("va")) == (0, sft)


@given(st.integers(1, 9), st.none() | st.integers(0, 9), st.none() | st.integers(0, 9))
def test_fed_rounds_is_of_the_phases_whose_own_number_is_not_given(both, sft, va):
    given_ = {name: count for name, count in (("sft_rounds", sft), ("va_rounds", va)) if count is not None}
    found = load_settings({"fed_rounds": both, **given_})
    expected = both if sft is None else sft, both if va is None else va
    if not any(expected):
        with pytest.raises(SettingsError, match="SFT_ROUNDS=0 and VA_ROUNDS=0: a run has at least one round"):
            found.round_plan()
        return
    plan = found.round_plan()
    assert (plan.rounds_of("sft"), plan.rounds_of("va"), plan.total_rounds) == (*expected, sum(expected))


def test_a_plan_without_a_round_is_not_built():
    with pytest.raises(ValidationError, match="a run has at least one round"):
        a_plan(0, 0)


@settings(max_examples=few(30))
@given(COUNTS)
def test_a_federation_does_these_rounds_and_va_has_what_it_began_with_as_reference(counts):
    sft, va = counts
    spy = Spy()
    results = list(with_rounds(sft, va).run(START, InProcessTransport(spy, shard)))
    assert [result.record.phase for result in results] == ["sft"] * sft + ["va"] * va
    assert [result.record.round for result in results] == list(range(sft + va))
    reference = results[sft - 1].state.adapter if sft else START.adapter
    assert {task.reference.sha256 for task in spy.tasks if task.phase == "va"} == ({reference.sha256} if va else set())


@pytest.mark.parametrize(("sft", "va"), [(0, 3), (3, 0), (1, 2), (2, 1)])
def test_a_run_that_is_stopped_after_any_round_goes_on_to_the_same_bytes(tmp_path, sft, va):
    def a_run(name):
        return Run(with_rounds(sft, va), RunFolder.at(tmp_path / name), lambda: START.adapter)

    transport, whole = InProcessTransport(ToyLearner(), shard), a_run("whole")
    expected = [result.record.adapter_sha256 for result in whole.rounds(transport)]
    for stop in range(sft + va):
        found = [next(a_run(f"stop {stop}").rounds(transport, resume=number > 0)) for number in range(stop)]
        rest = a_run(f"stop {stop}")
        found += rest.rounds(transport, resume=stop > 0)
        assert [result.record.adapter_sha256 for result in found] == expected
        assert rest.finish(transport).sha256 == expected[-1]
    state = whole.folder.state()
    assert (state.first_va, state.total_rounds, state.finished) == (sft, 3, True)


@pytest.mark.parametrize(
    ("sft", "va", "names"), [(0, 2, ["base", "FedVA"]), (2, 0, ["base", "SFT"]), (1, 1, ["base", "SFT", "FedVA"])]
)
def test_what_is_evaluated_are_the_phases_that_were(tmp_path, sft, va, names):
    run = Run(with_rounds(sft, va), RunFolder.at(tmp_path), lambda: START.adapter)
    transport = InProcessTransport(ToyLearner(), shard)
    list(run.rounds(transport))
    run.finish(transport)
    assert list(run_adapters(run.folder.paths)) == names


def test_a_run_without_sft_says_what_its_reference_is_and_its_kept_rounds_have_it(tmp_path):
    told = []

    class Told(RunListener):
        def told(self, line):
            told.append(line)

    run = Run(with_rounds(0, 2), RunFolder.at(tmp_path), lambda: START.adapter, listener=Told())
    list(run.rounds(InProcessTransport(ToyLearner(), shard)))
    assert any(line.startswith("No SFT round (SFT_ROUNDS=0): the reference policy") for line in told)
    for number in range(2):
        assert kept_round(run.folder.paths, number).reference.sha256 == START.adapter.sha256
