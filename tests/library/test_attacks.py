"""Attacks find what is there to be found: a model that has learnt its members, an update of one example."""

import pytest
import torch

from fccl.adapters.adapter import Adapter
from fccl.data.shards import ClientShard
from fccl.library.attacks import Attacker, Candidates
from fccl.library.canaries import AuditData, canaries
from fccl.model.loading import load_model
from fccl.paths import LogPaths
from fccl.specs import ModelSpec

SPEC = ModelSpec(name="builtin:micro", lora_r=4, lora_alpha=8, lora_targets="all-linear", max_length=64)


@pytest.fixture(scope="module")
def model():
    return load_model(SPEC)


@pytest.fixture(scope="module")
def data():
    """Six members and six others, all drawn alike, two canaries of each number of repeats, and eight unused."""
    drawn = canaries(26, seed=5)
    groups = (drawn[12:14], drawn[14:16], drawn[16:18])
    return AuditData(ClientShard(0, drawn[:6], ()), drawn[:6], drawn[6:12], groups, drawn[18:])


def stepped(model, start, rows, rate):
    """The adapter after one step of sign descent on the mean loss of these rows: what Adam's first step is."""
    from fccl.model.objectives import objective_for
    from fccl.training.objective import ObjectiveUnderModel

    model.load(start)
    gradient = ObjectiveUnderModel(model, objective_for("sft", [(row,) for row in rows])).at(range(len(rows))).gradient
    return Adapter({name: tensor - rate * torch.sign(gradient[name]) for name, tensor in start.tensors.items()})


def test_the_signs_of_an_update_of_one_example_are_those_of_its_gradient(model, data):
    candidates, start = Candidates.of(model, data), model.initial_adapter(1)
    attacker = Attacker(model, candidates, start, 8)
    for place in (0, 4, 9):
        scores = attacker.signs(start, stepped(model, start, candidates.rows[place : place + 1], 1e-3))
        assert scores.argmax() == place
        assert scores[place] == pytest.approx(1.0, abs=1e-6)
        assert (abs(scores) <= 1 + 1e-6).all()


def test_an_update_that_moved_nothing_tells_nothing(model, data):
    candidates, start = Candidates.of(model, data), model.initial_adapter(1)
    attacker = Attacker(model, candidates, start, 8)
    assert not attacker.signs(start, start).any()
    told = attacker.released(start)
    assert told.membership.auc.value == 0.5
    assert all(each.mean.value == pytest.approx(1.0, abs=0.2) for each in told.exposures)  # the middle of nine


def test_an_adapter_that_was_trained_on_members_and_canaries_gives_them_away(model, data):
    candidates, adapter = Candidates.of(model, data), model.initial_adapter(1)
    start, known = adapter, [*candidates.rows[:6], *candidates.rows[16:18]]
    for _ in range(30):
        adapter = stepped(model, adapter, known, 4e-3)
    told = Attacker(model, candidates, start, 8).released(adapter)
    assert told.membership.auc.value > 0.6
    assert told.exposures[2].mean.value > 2.5  # of 3.17: first among nine
    assert told.exposures[0].mean.value < 2  # planted nowhere
    assert [each.repeats for each in told.exposures] == [1, 4, 16]


def test_an_update_that_was_not_kept_is_said(model, data, tmp_path):
    attacker = Attacker(model, Candidates.of(model, data), model.initial_adapter(1), 8)
    (line,) = attacker.updates(LogPaths(tmp_path), 0, [0])
    assert line.startswith("update of round 1: the updates of round 1 are not in")
