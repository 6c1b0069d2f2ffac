"""Own tests at a client: three means over the examples that it keeps apart, and nothing else."""

import pytest

from fccl.data.shards import ClientShard
from fccl.errors import DataError, UpdateRejected
from fccl.evaluation.own_test import FEWEST, OwnTester, trained_alone
from fccl.evaluation.validation import Validator
from fccl.messages import ClientFailure, FitTask, OwnTestTask
from fccl.model.loading import Models
from fccl.specs import PreferenceSpec, TrainSpec
from fccl.training.engines import learner_for
from fccl.transports.in_process import InProcessTransport

TRAIN = TrainSpec(epochs=1, learning_rate=0.01, batch_size=2, warmup=0, max_grad_norm=1, prox_mu=0.5, threads=1)


@pytest.fixture
def tester(tiny_model):
    models = Models.holding(tiny_model)
    return OwnTester(models, learner_for(models))


@pytest.fixture
def shard(split):
    """Trains on half of the split, and keeps the other half apart."""
    sft, va = tuple(split.sft), tuple(split.va)
    return ClientShard(1, sft[: len(sft) // 2], va[: len(va) // 2], sft[len(sft) // 2 :], va[len(va) // 2 :])


def task(model, an_adapter, phase="sft", rounds=2):
    reference = an_adapter(9) if phase == "va" else None
    return OwnTestTask(
        "run", 5, phase, an_adapter(1), an_adapter(2), reference, model.spec, TRAIN, 7, (0.02, 0.01)[:rounds], 4
    )


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_the_means_are_the_validator_s_on_the_examples_kept_apart(tiny_model, an_adapter, tester, shard, phase):
    request = task(tiny_model, an_adapter, phase)
    found = tester.answer(request, shard, lambda status: None)
    validator = Validator(tiny_model, shard.test_sft, shard.test_va, preference=TRAIN.preference, batch_size=4)
    adapters = tiny_model.initial_adapter(0), trained_alone(tester.learner, request, shard), an_adapter(1)
    losses = [validator(phase, each, request.reference).loss for each in adapters]
    assert [found.base, found.alone, found.together] == losses
    assert len(set(losses)) == 3
    assert found.examples == len(shard.tests_of(phase))
    assert set(found.model_dump()) == {"client_id", "examples", "units", "base", "alone", "together", "personal"}
    assert found.personal is None


def test_a_client_alone_trains_round_after_round_from_the_phase_s_start_and_nothing_pulls_it(
    tiny_model, an_adapter, tester, shard
):
    adapter, free = an_adapter(2), TRAIN.model_copy(update={"prox_mu": 0.0})
    for number in (4, 5):
        train = free.model_copy(update={"learning_rate": {4: 0.02, 5: 0.01}[number]})
        fit = FitTask("run", number, "sft", adapter, None, tiny_model.spec, train, 7)
        adapter = tester.learner.fit(fit, shard, lambda status: None).adapter.load()
    assert trained_alone(tester.learner, task(tiny_model, an_adapter), shard).sha256 == adapter.sha256


def test_too_few_examples_are_no_mean(tiny_model, an_adapter, tester, shard):
    little = ClientShard(1, shard.sft, shard.va, shard.test_sft[: FEWEST - 1])
    with pytest.raises(DataError, match="client 1 keeps fewer than 3 instructions apart"):
        tester.answer(task(tiny_model, an_adapter), little, lambda status: None)
    answer = next(
        InProcessTransport(tester.learner, lambda client: little, [tester]).ask(task(tiny_model, an_adapter), [1])
    )
    assert isinstance(answer, ClientFailure)


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_a_request_comes_back_from_its_terms(tiny_model, an_adapter, phase):
    request = task(tiny_model, an_adapter, phase)
    again = OwnTestTask.from_terms(request.terms(), request.adapters())
    assert again.terms() == request.terms()
    assert {name: each.sha256 for name, each in again.adapters().items()} == {
        name: each.sha256 for name, each in request.adapters().items()
    }
    with pytest.raises(UpdateRejected):
        OwnTestTask.from_terms(request.terms(), {"adapter": an_adapter(1)})
    with pytest.raises(UpdateRejected):
        OwnTestTask.from_terms(request.terms() | {"rates": []}, request.adapters())


def test_only_a_loss_with_a_reference_has_one(tiny_model, an_adapter):
    without = TRAIN.model_copy(update={"preference_loss": "simpo"})
    assert without.preference == PreferenceSpec(loss="simpo")
    OwnTestTask("run", 5, "va", an_adapter(1), an_adapter(2), None, tiny_model.spec, without, 7, (0.1,), 4)
    with pytest.raises(ValueError, match="has no reference"):
        OwnTestTask("run", 5, "va", an_adapter(1), an_adapter(2), an_adapter(3), tiny_model.spec, without, 7, (0.1,), 4)


def test_a_personal_adapter_is_scored_beside_the_others(tiny_model, an_adapter, tester, shard):
    request = task(tiny_model, an_adapter)
    own = OwnTester(tester.models, tester.learner, lambda request, shard: an_adapter(5))
    found, bare = (each.answer(request, shard, lambda status: None) for each in (own, tester))
    validator = Validator(tiny_model, shard.test_sft, shard.test_va, preference=TRAIN.preference, batch_size=4)
    assert found.personal == validator("sft", an_adapter(5), None).loss
    assert found.model_copy(update={"personal": None}) == bare
