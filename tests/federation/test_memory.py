"""A weighing rule's memory: of the phase's rounds before, and the same after a kill and in a replay."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.contribution.own import OwnWeigher
from fccl.contribution.protocol import Weighing
from fccl.contribution.tempered import Tempered
from fccl.errors import FederationError
from fccl.federation.kept_rounds import kept_round
from fccl.federation.replay import ReplayedRun, state_before
from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.testing.quadratic import Quadratic
from fccl.testing.toy import START, ToyLearner, federation
from tests.examples import few
from tests.federation.toy_runs import ROUNDS, conduct, toy_transport

APART = tuple((x, -x, y) for x, y in ((0.1, 0.2), (-0.1, 0.1), (0.3, -0.2), (-0.3, -0.1), (0.0, 0.0)))


def tempered():
    """Of examples of five topics, whose loss is least between the toy clients' targets."""
    return Tempered(Quadratic((1.5, 1.5, 1.5), apart=APART))


@dataclasses.dataclass(frozen=True)
class Counting:
    """Weighs who took part in more rounds more, and leaves a line of what it was given."""

    memory: dict = dataclasses.field(default_factory=dict)

    def remembering(self, memory):
        return Counting(memory)

    def weigh(self, task, updates):
        rounds = [self.memory.get(each.client_id, (0,))[0] + 1 for each in updates]
        memory = {**self.memory, **{each.client_id: (n,) for each, n in zip(updates, rounds, strict=True)}}
        return Weighing(tuple(n / sum(rounds) for n in rounds), tuple(map(float, rounds)), memory=memory)


RULES = {"tempered": tempered, "own": lambda: OwnWeigher("mine:Counting", Counting())}


@pytest.mark.parametrize("per_round", [2, 4])
def test_a_round_is_weighed_by_the_phase_s_rounds_before_it(per_round):
    fed = federation(rounds=3, per_round=per_round, rule=Counting())
    results = list(fed.run(START, toy_transport()))
    for phase in (results[:3], results[3:]):
        seen = dict.fromkeys(range(4), 0)
        for result in phase:
            for client in result.record.clients:
                seen[client] += 1
            total = sum(seen[client] for client in result.record.clients)
            assert result.record.weights == tuple(seen[client] / total for client in result.record.clients)
            assert result.state.memory == {client: (rounds,) for client, rounds in seen.items() if rounds}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@given(stop=st.integers(1, ROUNDS - 1), seed=st.integers(0, 99), broken=st.sets(st.integers(0, 3), max_size=1))
@settings(max_examples=few(15), deadline=None)
def test_a_resumed_run_weighs_as_it_would_have(tmp_path_factory, rule, stop, seed, broken):
    root, learner = tmp_path_factory.mktemp("run"), ToyLearner(frozenset(broken))
    fed = federation(rule=rule(), per_round=3, min_clients=1)
    fed = dataclasses.replace(fed, plan=fed.plan.model_copy(update={"seed": seed}))
    _, whole = conduct(root / "whole", fed, learner=learner)
    cut = Run(fed, RunFolder.at(root / "cut"), lambda: START.adapter)
    rounds = cut.rounds(toy_transport(learner))
    for _ in range(stop):
        next(rounds)
    rounds.close()
    rest = list(Run(fed, RunFolder.at(root / "cut"), lambda: START.adapter).rounds(toy_transport(learner), resume=True))
    assert [one.record.weights for one in rest] == [one.record.weights for one in whole[stop:]]
    assert [one.state.memory for one in rest] == [one.state.memory for one in whole[stop:]]
    assert [one.record.adapter_sha256 for one in rest] == [one.record.adapter_sha256 for one in whole[stop:]]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_replay_from_any_kept_round_weighs_as_the_run_did(tmp_path, rule):
    fed = federation(rule=rule())
    logs, whole = conduct(tmp_path, fed)
    named = dataclasses.replace(fed, run_id=whole[0].record.run_id)
    again = list(ReplayedRun(logs, named, ROUNDS).rounds())
    assert [one.state.adapter.to_bytes() for one in again] == [one.state.adapter.to_bytes() for one in whole]
    for number in range(ROUNDS):
        assert state_before(logs, number, {}).memory == kept_round(logs, number).inputs.memory
        assert kept_round(logs, number).inputs.memory == dict(whole[number].inputs.memory)
    assert whole[1].inputs.memory
    assert not whole[ROUNDS // 2].inputs.memory, "VA begins with an empty one"


def test_a_rule_without_a_memory_leaves_no_trace_of_one(tmp_path):
    logs, _ = conduct(tmp_path)
    assert "memory" not in logs.state.read_text()
    assert "memory" not in logs.kept_round(1).inputs.read_text()


@dataclasses.dataclass(frozen=True)
class Keeps:
    """Keeps whatever it is made with."""

    memory: object

    def remembering(self, memory):
        return self

    def weigh(self, task, updates):
        return Weighing((1 / len(updates),) * len(updates), (0.0,) * len(updates), memory=self.memory)


NONE = (
    *(None, [1], {0: 1.0}, {"0": (1.0,)}, {-1: (1.0,)}, {True: (1.0,)}, {0: [1.0]}),
    *({0: (number,)} for number in (float("nan"), "a", True, (1.0,), 10**400, np.float32(1.0))),
)


@pytest.mark.parametrize("memory", NONE)
def test_a_memory_that_no_state_can_hold_is_one_error(memory):
    fed = federation(rule=OwnWeigher("mine:Keeps", Keeps(memory)))
    with pytest.raises(FederationError, match="mine:Keeps: its memory is not a few finite numbers"):
        next(iter(fed.run(START, toy_transport())))


def test_a_rule_that_raises_on_its_memory_is_one_error():
    class Raises(Keeps):
        def remembering(self, memory):
            raise ZeroDivisionError("by zero")

    with pytest.raises(FederationError, match="mine:Raises raised ZeroDivisionError: by zero"):
        next(iter(federation(rule=OwnWeigher("mine:Raises", Raises({}))).run(START, toy_transport())))


def test_a_rule_cannot_change_the_memory_that_it_is_given():
    """The kept round would say that it had known before what it learnt in it."""

    @dataclasses.dataclass(frozen=True)
    class Changes(Counting):
        def remembering(self, memory):
            memory[0] = (1.0,)
            return self

    with pytest.raises(TypeError):
        next(iter(federation(rule=Changes()).run(START, toy_transport())))


def test_a_rule_of_one_s_own_has_floats_as_a_resumed_run_reads_them():
    ways = [OwnWeigher("mine:Keeps", Keeps({0: (number,)})) for number in (1, 1.0, np.float64(1.0))]
    found = [next(iter(federation(rule=each).run(START, toy_transport()))).state.memory for each in ways]
    assert found == [{0: (1.0,)}] * 3
    assert all(type(each[0][0]) is float for each in found)


def test_a_replay_of_a_run_that_another_rule_weighed_begins_without_a_memory(tmp_path):
    logs, whole = conduct(tmp_path, federation(rule=OwnWeigher("mine:Counting", Counting())))
    named = dataclasses.replace(federation(rule=tempered()), run_id=whole[0].record.run_id)
    replays = {
        each: list(ReplayedRun(logs, named, ROUNDS, by_round=True, remembers=each).rounds()) for each in (True, False)
    }
    assert whole[1].inputs.memory
    assert [one.inputs.memory for one in replays[False]] == [{}] * ROUNDS
    assert replays[True][1].inputs.memory == whole[1].inputs.memory
