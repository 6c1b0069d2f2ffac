"""Late answers: a change from one adapter taken from another, for less weight; checked, recorded, kept and resumed."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter
from fccl.aggregation.protocol import Parts
from fccl.aggregation.rules import aggregation
from fccl.contribution.protocol import Weighing
from fccl.contribution.stretch import as_weighed
from fccl.federation.carried import Carried
from fccl.federation.kept_rounds import kept_round
from fccl.federation.late import DISCOUNT, discounted, moved
from fccl.federation.replay import ReplayedRun
from fccl.federation.run import Run
from fccl.federation.run_folder import RunFolder
from fccl.messages import ClientFailure, declined
from fccl.paths import LogPaths
from fccl.records.late import LateUpdate
from fccl.records.run import ClientMetrics
from fccl.storage.reading import read_records
from fccl.testing import lora_toy
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.testing.transport import task
from fccl.tracking.listener import RunListener
from fccl.transports.in_process import InProcessTransport

numbers = st.lists(st.floats(-1000, 1000, width=32), min_size=3, max_size=3)
weights = st.lists(st.floats(0.01, 1), min_size=1, max_size=6).map(
    lambda each: tuple(w / math.fsum(each) for w in each)
)


class LateClients(InProcessTransport):
    """Clients that are late in the rounds that are named: (round, client). `edit` changes a late update on its way."""

    def __init__(self, late, edit=lambda update: update, learner=None):
        self.learner = learner or ToyLearner()
        super().__init__(self.learner, shard)
        self.missing, self.edit, self.asked = set(late), edit, []

    def ask(self, task, client_ids):
        for answer in super().ask(task, client_ids):
            is_late = (task.round, answer.client_id) in self.missing
            yield ClientFailure(answer.client_id, "no answer within 600 s") if is_late else answer

    def late(self, task, client_ids):
        self.asked.append((task.round, tuple(client_ids)))
        for client in client_ids:
            if (task.round, client) in self.missing:
                yield self.edit(self.learner.fit(task, shard(client), lambda status: None))


def toys(**changes):
    return federation(4, rounds=3, late_updates="next", **changes)


def run(transport, fed=None, state=START):
    return list((fed or toys()).run(state, transport))


def as_adapter(values):
    return Adapter({"w": torch.tensor(values)})


def update_of(adapter, round_number=0):
    update = ToyLearner().fit(task(round_number), shard(1), lambda status: None)
    return dataclasses.replace(update, adapter=adapter)


@given(numbers, numbers)
def test_an_update_that_is_late_by_no_change_is_the_round_s_own_adapter(before, now):
    found = Carried(as_adapter(before), as_adapter(before), as_adapter(now)).load()
    assert torch.equal(found.tensors["w"], as_adapter(now).tensors["w"])


@given(numbers, numbers, numbers)
def test_a_late_update_is_the_new_adapter_plus_the_change_from_the_old(update, before, now):
    exact = np.float64(now) + (np.float64(update) - np.float64(before))
    found = Carried(as_adapter(update), as_adapter(before), as_adapter(now)).load().tensors["w"]
    assert found.numpy() == pytest.approx(exact.astype(np.float32), abs=0)


@given(weights, st.data())
def test_the_weights_sum_to_one_and_only_late_ones_shrink_beside_the_others(before, data):
    late = data.draw(st.lists(st.booleans(), min_size=len(before), max_size=len(before)))
    updates = [update_of(as_adapter([0.0] * 3), 0 if each else 1) for each in late]
    after = discounted(task(1), updates, Weighing(before, before)).weights
    assert math.fsum(after) == pytest.approx(1, abs=1e-12)
    if not any(late):
        assert after == before
    for i in range(len(before)):
        for j in range(len(before)):
            expected = before[i] / before[j] * (2**-0.5 if late[i] and not late[j] else 1)
            if late[i] or not late[j]:
                assert after[i] / after[j] == pytest.approx(expected)


def test_a_moved_update_keeps_the_length_of_its_change_and_the_round_that_it_was_trained_for():
    update = dataclasses.replace(update_of(as_adapter([1.0, 2.0, 3.0])), change_norm=4.0)
    found = moved(update, as_adapter([1.0, 0.0, 0.0]), as_adapter([5.0, 5.0, 5.0]))
    assert (found.round, found.change_norm, found.adapter.load().tensors["w"].tolist()) == (0, 4.0, [5.0, 7.0, 8.0])
    assert found.adapter.form == update.adapter.form


def test_a_late_update_is_recorded_with_the_round_it_was_trained_for_and_is_no_exclusion():
    results = run(LateClients({(0, 2)}))
    first, second = results[0].record, results[1].record
    assert [(out.client_id, out.reason) for out in first.excluded] == [(2, "no answer within 600 s")]
    assert (first.late, first.clients) == ((), (0, 1, 3))
    assert second.late == ()  # client 2 has an answer of its own in the second round
    results = run(LateClients({(0, 2), (1, 2)}))
    second = results[1].record
    assert (second.late, second.clients) == ((LateUpdate(client_id=2, round=0),), (0, 1, 2, 3))
    assert (second.excluded, [each.client_id for each in second.arrived]) == ((), [0, 1, 2, 3])
    assert math.fsum(second.weights) == pytest.approx(1, abs=1e-12)


def test_the_weight_of_a_late_update_is_the_rule_s_times_the_discount_and_the_aggregate_takes_its_change():
    results = run(LateClients({(0, 2), (1, 2)}))
    before, now, second = START.adapter, results[0].state.adapter, results[1]
    raw = [1, 2, 3, 4]  # FCCL's default weighs by samples, here as softmax of samples over their mean
    scores = np.exp(np.array(raw) / np.mean(raw))
    parts = scores * np.array([1, 1, DISCOUNT, 1])
    assert second.record.weights == pytest.approx(parts / parts.sum())
    trained = {update.client_id: update.adapter.load().tensors["w"].double() for update in second.inputs.arrived}
    trained[2] = now.tensors["w"].double() + trained[2] - before.tensors["w"].double()
    expected = sum(float(weight) * trained[client] for client, weight in enumerate(parts / parts.sum()))
    assert second.state.adapter.tensors["w"].numpy() == pytest.approx(expected.numpy(), rel=1e-6)


def test_a_client_that_was_not_asked_in_the_next_round_still_counts_there():
    fed = toys(per_round=2)
    asked = [result.record.selected for result in run(InProcessTransport(ToyLearner(), shard), fed)]
    client = next(client for client in asked[0] if client not in asked[1])
    second = run(LateClients({(0, client)}), fed)[1].record
    assert second.selected == asked[1]
    assert second.clients == tuple(sorted((*asked[1], client)))


def test_no_answer_is_asked_for_that_was_there_or_declined_or_of_another_phase():
    transport = LateClients({(0, 2), (2, 2), (3, 1), (4, 1)}, learner=ToyLearner(errors={3: declined("va")}))
    run(transport)
    assert transport.asked == [(3, (1,))]  # clients 2 and 1 have answers in rounds 1 and 5; round 2 ends a phase


def test_without_the_setting_nobody_is_asked_for_late_answers_and_the_bytes_stay():
    transport, fed = LateClients({(0, 2), (1, 2)}), federation(4, rounds=3)
    results = run(transport, fed)
    assert transport.asked == []
    assert [result.state.pending for result in results] == [None] * 6
    assert all('"late"' not in result.record.model_dump_json() for result in results)


def _with_samples(update):
    said = update.contribution.model_copy(update={"num_samples": 999})
    return dataclasses.replace(update, contribution=said)


def _with_numbers(factor):
    def edit(update):
        tensors = {name: factor * tensor for name, tensor in update.adapter.load().tensors.items()}
        return dataclasses.replace(update, adapter=Adapter(tensors))

    return edit


EDITS = {
    "reports 999 samples, but its shard has 3": _with_samples,
    "more than 1,000,000": _with_numbers(1e9),
    "the update is of run_id 'other', the task of 'run'": lambda update: dataclasses.replace(update, run_id="other"),
    "the update is of round 1, the task of 0": lambda update: dataclasses.replace(update, round=1),
    "the update is of phase 'va', the task of 'sft'": lambda update: dataclasses.replace(update, phase="va"),
    "the adapters have different tensors": lambda update: dataclasses.replace(
        update, adapter=Adapter({"v": torch.zeros(3)})
    ),
}


@pytest.mark.parametrize("reason", EDITS)
def test_a_late_answer_is_checked_as_any_other_and_one_that_is_no_good_is_not_taken(reason):
    told = []
    known = {"sft": {client: client + 1 for client in range(4)}}
    fed = dataclasses.replace(toys(), known_samples=known, tell=told.append)
    second = run(LateClients({(0, 2), (1, 2)}, EDITS[reason]), fed)[1].record
    assert (second.late, second.clients) == ((), (0, 1, 3))
    assert [out.client_id for out in second.excluded] == [2]
    assert told[0].startswith("client 2: its late answer is not taken: ")
    assert reason in told[0]


def test_a_late_update_that_moved_too_far_is_excluded_like_any_other():
    second = run(LateClients({(0, 2), (1, 2)}, _with_numbers(1e5)))[1].record
    assert second.late == (LateUpdate(client_id=2, round=0),)
    assert second.clients == (0, 1, 3)
    assert "MAX_UPDATE_RATIO" in second.excluded[0].reason


def test_who_answers_in_another_s_name_or_twice_is_not_taken():
    def another(update):
        return dataclasses.replace(update, client_id=1)

    assert run(LateClients({(0, 2), (1, 2)}, another))[1].record.late == ()


class Twice(LateClients):
    def late(self, task, client_ids):
        for update in super().late(task, client_ids):
            yield from (update, dataclasses.replace(update, adapter=task.adapter))


def test_of_two_late_answers_of_a_client_the_first_is_taken():
    once, twice = run(LateClients({(0, 2), (1, 2)})), run(Twice({(0, 2), (1, 2)}))
    assert once[1].state.adapter.sha256 == twice[1].state.adapter.sha256


@pytest.mark.parametrize("name", ["fedavg", "fedadam", "fedexp", "norm_clipping"])
def test_a_kept_round_with_a_late_update_gives_its_adapter_again(tmp_path, name):
    rule = aggregation(name)
    conducted = Run(toys(aggregation=rule), RunFolder.at(tmp_path), lambda: START.adapter)
    results = list(conducted.rounds(LateClients({(0, 2), (1, 2), (3, 0), (4, 0)})))
    for number in (1, 4):
        kept = kept_round(LogPaths(tmp_path), number)
        parts = Parts(kept.record.weights, as_weighed(kept.task, kept.updates(), kept.record.stretch))
        again = rule.aggregate(kept.adapter, parts, kept.server).adapter
        assert again.to_bytes() == results[number].state.adapter.to_bytes()
        late = {1: 2, 4: 0}[number]
        assert [update.round for update in kept.arrived()] == [
            number - (update.client_id == late) for update in kept.arrived()
        ]
        assert kept.before.sha256 == (START.adapter if number == 1 else results[2].state.adapter).sha256
    assert kept_round(LogPaths(tmp_path), 2).before is None


def test_metrics_name_the_round_that_the_update_counted_in_and_the_one_it_was_trained_for(tmp_path):
    list(Run(toys(), RunFolder.at(tmp_path), lambda: START.adapter).rounds(LateClients({(0, 2), (1, 2)})))
    lines = list(read_records(LogPaths(tmp_path).client_metrics, ClientMetrics))
    assert [(each.client_id, each.round) for each in lines if each.trained_for is not None] == [(2, 1)]
    assert next(each.trained_for for each in lines if (each.client_id, each.round) == (2, 1)) == 0


class Killed(BaseException):
    """Stands for the process's end."""


class KillsOnce(RunListener):
    """Ends the process when this answer is heard, once: so a round is lost after its late answers were read."""

    def __init__(self, client_id, round_number):
        self.at = (client_id, round_number)

    def answer(self, answer):
        if self.at and (answer.client_id, getattr(answer, "round", -1)) == self.at:
            self.at = None
            raise Killed


LATE = {(0, 2), (1, 2), (1, 0), (2, 0), (4, 3), (5, 3)}


def test_a_run_that_is_killed_with_late_answers_in_hand_goes_on_to_the_same_bytes(tmp_path):
    whole = list(Run(toys(), RunFolder.at(tmp_path / "whole"), lambda: START.adapter).rounds(LateClients(LATE)))
    for at in [(2, 0), (0, 1), (3, 4), (1, 1), (1, 2)]:
        folder, listener = RunFolder.at(tmp_path / f"{at[0]}_{at[1]}"), KillsOnce(*at)
        with pytest.raises(Killed):
            list(Run(toys(), folder, lambda: START.adapter, listener=listener).rounds(LateClients(LATE)))
        again = Run(toys(), folder, lambda: START.adapter, listener=listener)
        rest = list(again.rounds(LateClients(LATE), resume=folder.state() is not None))
        assert rest[-1].state.adapter.sha256 == whole[-1].state.adapter.sha256
        assert [result.record.late for result in rest] == [result.record.late for result in whole[-len(rest) :]]
        lines = list(read_records(folder.paths.client_metrics, ClientMetrics))
        assert len({(each.client_id, each.round) for each in lines}) == len(lines)


def test_adapters_of_lora_factors_are_moved_factor_by_factor():
    fed = lora_toy.lora_federation("factors", rounds=3, late_updates="next")
    results = run(LateClients({(0, 2), (1, 2)}, learner=lora_toy.LoraLearner()), fed, lora_toy.START)
    second = results[1]
    before, now = lora_toy.START.adapter.tensors, second.inputs.task.adapter.tensors
    for name in before:
        total = 0.0
        for update, weight in zip(second.inputs.arrived, second.record.weights, strict=True):
            change = update.adapter.load().tensors[name] - (before if update.client_id == 2 else now)[name]
            total = total + weight * (now[name] + change)
        assert torch.allclose(second.state.adapter.tensors[name], total, atol=1e-5)


@pytest.mark.parametrize("by_round", [False, True])
def test_a_run_with_late_answers_is_replayed_to_the_same_bytes_and_without_a_client_without_its_late_ones(
    tmp_path, by_round
):
    conducted = Run(toys(), RunFolder.at(tmp_path), lambda: START.adapter)
    results = list(conducted.rounds(LateClients(LATE)))
    fed = dataclasses.replace(toys(), run_id=conducted.identity.run_id)
    again = list(ReplayedRun(LogPaths(tmp_path), fed, 6, by_round=by_round).rounds())
    assert [one.state.adapter.sha256 for one in again] == [one.state.adapter.sha256 for one in results]
    assert [one.record.late for one in again] == [one.record.late for one in results]
    assert any(one.record.late for one in again)
    without = ReplayedRun(LogPaths(tmp_path), fed, 6, by_round=by_round, without=frozenset({2})).rounds()
    assert all(2 not in one.record.clients and all(each.client_id != 2 for each in one.record.late) for one in without)
