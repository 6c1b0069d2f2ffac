"""A phase that is watched on the validation split: when it has stopped gaining, and which round was best."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.aggregation.rules import aggregation
from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.federation.watch import Watch, gain_of
from fccl.records.run import ExampleLosses, RoundRecord, Validation
from fccl.specs import RoundPlan
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.tracking.listener import RunListener
from fccl.transports.in_process import InProcessTransport
from tests.examples import few

EXAMPLES = 5
# The loss after each round of a phase: round 2 is best, and from there on nothing is gained.
FALLS = (3.0, 2.0, 1.0, 1.5, 1.4, 0.9)


def losses(mean, spread=0.0):
    """Of five examples, whose mean changes while each differs by `spread` from round to round."""
    offsets = [spread, -spread, 0.0, 0.0, 0.0]
    return ExampleLosses(losses=tuple(mean + offset for offset in offsets), units=(1.0,) * EXAMPLES)


def a_plan(patience, result="last"):
    return RoundPlan(fed_rounds=9, num_clients=1, clients_per_round=1, seed=0, patience=patience, result_round=result)


# --- the gain and its noise


@settings(max_examples=few(50))
@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), min_size=2, max_size=30))
def test_of_pairs_the_gain_is_the_mean_difference_and_its_noise_the_standard_error_of_a_mean(pairs):
    before, after = (np.array(side) for side in zip(*pairs, strict=True))
    ones = (1.0,) * len(pairs)
    found = gain_of(ExampleLosses(losses=tuple(before), units=ones), ExampleLosses(losses=tuple(after), units=ones))
    falls = before - after
    assert found.gain == pytest.approx(falls.mean(), abs=1e-12)
    assert found.noise == pytest.approx(falls.std(ddof=1) / math.sqrt(len(pairs)), abs=1e-12)


def test_of_instructions_tokens_count_alike_and_the_noise_is_that_of_a_ratio():
    """Against the spread of the ratio over many draws of examples, which the formula is a linear approximation of."""
    draw = np.random.default_rng(4)
    tokens = draw.integers(1, 9, 400).astype(float)
    falls = 0.3 * tokens + draw.normal(0, 1, 400)
    before = ExampleLosses(losses=tuple(falls), units=tuple(tokens))
    found = gain_of(before, ExampleLosses(losses=(0.0,) * 400, units=tuple(tokens)))
    drawn = draw.integers(0, 400, (4000, 400))
    ratios = falls[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)
    assert found.gain == pytest.approx(falls.sum() / tokens.sum())
    assert found.noise == pytest.approx(ratios.std(), rel=0.06)


def test_one_example_has_no_noise_that_could_be_known_so_nothing_is_a_gain():
    one = ExampleLosses(losses=(9.0,), units=(1.0,))
    assert gain_of(one, ExampleLosses(losses=(0.0,), units=(1.0,))) == (9.0, math.inf)


# --- rounds


def followed(plan, values, spread=0.0):
    """The watch after each round, from a start whose loss is 4."""
    watch, found = Watch(anchor=losses(4.0)), []
    for number, value in enumerate(values):
        watch, said = watch.after(plan, number, START.adapter, value, losses(value, spread * (-1) ** number))
        found.append((watch, said))
    return found


def test_rounds_without_a_gain_are_counted_from_the_last_that_gained():
    assert [said.waited for _, said in followed(a_plan(2), FALLS)] == [0, 0, 0, 1, 2, 0]


def test_a_gain_within_its_noise_is_none_and_small_ones_add_up_until_they_are_beyond_it():
    """Each round falls by 0.1, where the standard error of a difference of two rounds is 0.25 or 0."""
    found = followed(a_plan(9), [4 - 0.1 * number for number in range(1, 9)], spread=0.6)
    assert [said.waited for _, said in found] != [0] * 8
    assert max(said.waited for _, said in found) < 8
    for _, said in found:
        assert (said.waited == 0) == (said.gain > said.noise)


@settings(max_examples=few(50))
@given(st.lists(st.sampled_from([1.0, 1.5, 2.0, 3.0]), min_size=1, max_size=9))
def test_the_best_round_is_the_first_of_the_lowest_loss(values):
    found = followed(a_plan(0, "best"), values)
    for number, (watch, said) in enumerate(found):
        assert watch.best.round == said.best_round == int(np.argmin(values[: number + 1]))


def test_nothing_is_watched_unless_it_is_asked_for():
    watch = Watch()
    assert watch.after(a_plan(0), 3, START.adapter, 1.0, None) == (watch, None)


# --- federations

TARGETS = torch.linspace(1.3, 1.7, EXAMPLES)  # near the middle of what the toy clients want


def by_example(phase, adapter, reference):
    """Of each example the squared distance to a point of its own: it falls at first, then it is noise."""
    distances = (adapter.tensors["w"][None, :] - TARGETS[:, None]).square().sum(dim=1)  # (5, 3) -> (5,)
    return ExampleLosses(losses=tuple(distances.tolist()), units=(1.0,) * EXAMPLES)


def validate(phase, adapter, reference):
    found = by_example(phase, adapter, reference).losses
    return Validation(loss=sum(found) / EXAMPLES, examples=EXAMPLES)


def watched(rule=None, sft=12, va=12, **changes):
    fed = federation(clients=4, aggregation=rule)
    plan = fed.plan.model_copy(update={"sft_rounds": sft, "va_rounds": va, **changes})
    return dataclasses.replace(fed, plan=plan, validate=validate, by_example=by_example)


def rounds(fed):
    return list(fed.run(START, InProcessTransport(ToyLearner(), shard)))


def test_patience_ends_each_phase_and_the_other_rounds_are_those_of_a_run_that_was_planned_so():
    """The numbers of rounds that came out, as a plan without PATIENCE: the same bytes."""
    results = rounds(watched(patience=2))
    ends = {result.record.phase: result.record.phase_end for result in results if result.record.phase_end}
    assert {phase: end.early for phase, end in ends.items()} == {"sft": True, "va": True}
    assert [result.record.round for result in results] == list(range(len(results)))
    assert results[-1].state.early == {phase: end.rounds for phase, end in ends.items()}
    planned = rounds(watched(sft=ends["sft"].rounds, va=ends["va"].rounds))
    assert hashes(results) == hashes(planned)
    assert ends["sft"].rounds + ends["va"].rounds == len(results) < 24


def test_each_phase_ends_exactly_with_its_round_of_so_many_without_a_gain():
    for result in rounds(watched(patience=3)):
        said, end = result.record.watched, result.record.phase_end
        assert (said.waited == 3) == (end is not None)


def test_the_best_round_is_the_result_and_va_begins_with_it_and_has_it_as_reference():
    results = rounds(watched(sft=4, va=3, result_round="best"))
    sft, va = results[:4], results[4:]
    best = min(sft, key=lambda result: result.record.validation.loss)
    assert (sft[-1].record.phase_end.result_round, sft[-1].record.phase_end.early) == (best.record.round, False)
    assert best.record.round < 3  # or the test says nothing
    assert {result.inputs.task.reference.sha256 for result in va} == {best.record.adapter_sha256}
    assert va[0].inputs.task.adapter.sha256 == best.record.adapter_sha256
    final = min(va, key=lambda result: result.record.validation.loss)
    assert results[-1].state.result.sha256 == results[-1].record.phase_end.adapter_sha256 == final.record.adapter_sha256


def test_without_either_setting_the_records_say_nothing_and_the_bytes_are_as_ever():
    plain = federation(clients=4)
    told = [(result.record.watched, result.record.phase_end) for result in rounds(watched(sft=2, va=2))]
    assert told == [(None, None)] * 4
    assert hashes(rounds(watched(sft=2, va=2))) == hashes(rounds(plain))


def hashes(results):
    return [result.record.adapter_sha256 for result in results]


RULES = {name: aggregation(name, "factors", 1) for name in ("fedavg", "fedadam", "fedavgm", "scaffold")}


@pytest.mark.parametrize("rule", list(RULES))
def test_va_begins_with_the_rules_initial_state_and_without_controls_wherever_sft_has_ended(rule):
    results = rounds(watched(RULES[rule], patience=2, result_round="best"))
    first = next(result for result in results if result.record.phase == "va")
    expected = RULES[rule].initial(first.inputs.task.adapter)
    assert first.inputs.server.sha256 == expected.sha256
    assert first.inputs.controls == {}


@pytest.mark.parametrize("rule", list(RULES))
def test_a_run_that_is_stopped_after_every_round_watches_as_one_that_is_not(tmp_path, rule):
    """Killed after each round's commit: momentum, control variates, the best adapter and the patience come back."""

    def a_run(folder, told=lambda line: None):
        listener = RunListener()
        listener.told = told
        fed = watched(RULES[rule], sft=7, va=7, patience=2, result_round="best")
        return Run(fed, RunFolder.at(folder), lambda: START.adapter, listener)

    transport, lines = InProcessTransport(ToyLearner(), shard), []
    whole = a_run(tmp_path / "whole", lines.append)
    expected = list(whole.rounds(transport))
    final = whole.finish(transport)
    for stop in range(len(expected)):
        rest = a_run(tmp_path / "stopped")
        found = next(rest.rounds(transport, resume=stop > 0))
        assert without_times(found.record) == without_times(expected[stop].record)
    assert list(rest.rounds(transport, resume=True)) == []
    assert rest.finish(transport).to_bytes() == final.to_bytes()
    assert rest.folder.paths.global_sft.read_bytes() == whole.folder.paths.global_sft.read_bytes()
    state = rest.folder.state()
    assert (state.total_rounds, state.finished, state.early) == (len(expected), True, expected[-1].state.early)
    assert state.early or rule == "fedadam"  # which still gains then
    assert [line.split(" ends after ")[0] for line in lines if " ends after " in line] == ["FedIT (SFT)", "FedVA (DPO)"]


def without_times(record: RoundRecord):
    return record.model_dump(exclude={"time", "seconds", "spent", "run_id"})
