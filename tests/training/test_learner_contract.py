"""The contract of learners, on every learner here: each engine's, the toy's, and those that stand before another one.

That of trainers has a file of its own (`tests/hf/test_learner_contract.py`).
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fccl.adapters.adapter import Adapter
from fccl.compare.attacks import HostileLearner
from fccl.compare.update_cache import CachedLearner
from fccl.data.examples import PreferencePair, SftExample
from fccl.data.shards import ClientShard
from fccl.errors import UpdateRejected
from fccl.messages import FitTask
from fccl.model.loading import Models
from fccl.paths import StatePaths
from fccl.specs import PHASES, REFERENCE_FREE, TrainSpec
from fccl.testing import toy
from fccl.testing.learner import LearnerContract, Subject
from fccl.training.engines import learner_for
from fccl.training.personal import PersonalAdapters, PersonalLearner
from fccl.training.private import PrivateLearner

SHARD = ClientShard(
    0,
    tuple(SftExample(f"What is {n}?", f"It is {n}.") for n in range(5)),
    tuple(PreferencePair(f"What is {n}?", f"It is {n}.", "Go away.") for n in range(4)),
)
TRAIN = TrainSpec(epochs=1, learning_rate=5e-3, batch_size=2, warmup=0, max_grad_norm=1.0, threads=1)

TOY = Subject(
    lambda ranks: toy.ToyLearner(),
    model=toy.MODEL,
    train=toy.TRAIN,
    start=toy.adapter(1.0, -2.0, 3.0),
    other=toy.adapter(0.5, 0.5, 0.5),
    shard=toy.shard(0),
    lora=False,
    measures=False,
)


class TestEngines(LearnerContract):
    @pytest.fixture(scope="class")
    def models(self, tiny_model):
        """One for the class: the models of lower ranks are loaded once."""
        return Models.holding(tiny_model)

    @pytest.fixture
    def subject(self, tiny_model, models):
        return Subject(
            lambda ranks: learner_for(models, ranks),
            model=tiny_model.spec,
            train=TRAIN,
            start=random_adapter(tiny_model, 1),
            other=random_adapter(tiny_model, 2),
            shard=SHARD,
            diverging=TRAIN.model_copy(update={"learning_rate": 1e30}),
        )


@pytest.mark.parametrize("loss", sorted(REFERENCE_FREE))
class TestLossesWithoutAReference:
    """What a reference changes for the contract is only the start of the loss; the rest holds as it stands there."""

    def test_a_client_trains_without_a_reference_and_says_its_loss(self, tiny_model, loss):
        spec = TRAIN.model_copy(update={"preference_loss": loss, "epochs": 3})
        task = FitTask("run", 3, "va", random_adapter(tiny_model, 1), None, tiny_model.spec, spec, seed=11)
        sent = FitTask.from_terms(task.terms(), task.adapters())
        update = learner_for(Models.holding(tiny_model)).fit(sent, SHARD, lambda status: None)
        update.require_answers(task)
        assert update.report.first_loss is not None
        assert update.contribution.avg_loss < update.report.first_loss


class TestToyLearner(LearnerContract):
    @pytest.fixture
    def subject(self):
        return TOY


def private(learner, folder):
    return PrivateLearner(learner, StatePaths(folder).client)


def personal(learner, folder):
    return PersonalLearner(learner, PersonalAdapters(StatePaths(folder).personal))


def cached(learner, folder):
    return CachedLearner(learner, folder, toy.adapter(1.0, -2.0, 3.0).sha256, "model", {"torch": "2"})


def hostile(learner, folder):
    return HostileLearner(learner, {})


@pytest.mark.parametrize("before", [private, personal, cached, hostile], indirect=True)
class TestBeforeAnotherLearner(LearnerContract):
    """Without noise, a personal adapter or an attack they keep what they stand before."""

    @pytest.fixture
    def before(self, request):
        return request.param

    @pytest.fixture
    def subject(self, before, tmp_path):
        return replace(TOY, make=lambda ranks: before(toy.ToyLearner(), tmp_path))


def random_adapter(model, seed):
    draw = torch.Generator().manual_seed(seed)
    return Adapter({name: 0.2 * torch.randn(shape, generator=draw) for name, shape in model.form.shapes.items()})


# --- the suite catches learners that break the contract


class Spoilt(toy.ToyLearner):
    """A toy learner with one fault."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def fit(self, task, shard, on_status):
        if self.fault == "tells nobody":
            return super().fit(task, shard, lambda status: None)
        update = super().fit(task, shard, on_status)
        if self.fault == "writes to the task's adapter":
            task.adapter.tensors["w"].add_(1)
        if self.fault == "draws from the global state":
            return replace(update, adapter=toy.adapter(*torch.rand(3).tolist()))
        if self.fault == "forgets its control":
            return replace(update, control=None)
        if self.fault == "answers another round":
            return replace(update, round=task.round + 1)
        return replace(update, contribution=update.contribution.model_copy(update={"num_samples": 99}))


@pytest.mark.parametrize(
    ("fault", "test"),
    [
        ("tells nobody", LearnerContract.test_its_heartbeats_begin_with_training_and_end_with_done),
        ("writes to the task's adapter", LearnerContract.test_neither_adapter_of_the_task_is_changed),
        ("draws from the global state", LearnerContract.test_the_same_task_gives_the_same_bytes),
        ("forgets its control", LearnerContract.test_a_correction_of_zero_changes_nothing_and_brings_a_control),
        ("answers another round", LearnerContract.test_the_update_answers_the_task),
        ("invents samples", LearnerContract.test_it_reports_its_samples_its_loss_and_its_work),
    ],
)
@pytest.mark.parametrize("phase", PHASES)
def test_a_learner_with_a_fault_fails(fault, test, phase):
    subject = replace(TOY, make=lambda ranks: Spoilt(fault), start=toy.adapter(1.0, -2.0, 3.0))
    with pytest.raises((AssertionError, UpdateRejected)):
        test(LearnerContract(), subject, phase)
