"""The learner that takes several clients at once: `fit` of each of them is the oracle."""

import dataclasses

import pytest
import torch

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import of_rank
from fccl.data.examples import PreferencePair, SftExample
from fccl.data.shards import ClientShard
from fccl.errors import DataError, StorageError
from fccl.messages import ClientFailure, FitTask, OwnCorrection, SeveralAtOnce
from fccl.model.language_model import GENERIC, GPT2
from fccl.model.loading import Models, load_model
from fccl.specs import ModelSpec, TrainSpec
from fccl.training.clients_learner import ClientsLearner
from fccl.training.learner import GenericLearner

TRAIN = TrainSpec(epochs=2, learning_rate=5e-3, batch_size=2, warmup=0.1, max_grad_norm=1.0, dpo_beta=0.01)
CLIENTS = (0, 2, 5)


@pytest.fixture(scope="module")
def tiny_model(tiny_model_path):
    return load_model(model_spec(tiny_model_path, GPT2))


def model_spec(path, engine):
    targets = {"lora_r": 4, "lora_alpha": 8.0, "lora_targets": "all-linear"}
    return ModelSpec(name=str(path), max_length=128, engine=engine, **targets)


def shard(client):
    """Client i has i + 3 examples of each kind."""
    return ClientShard(
        client,
        tuple(SftExample(f"What is {n}?", f"It is {n}, says {client}.") for n in range(client + 3)),
        tuple(PreferencePair(f"What is {n}?", f"It is {n}.", "Go away. " * client + "No.") for n in range(client + 3)),
    )


def task(model, phase="sft", rank=None, **changes):
    form = of_rank(model.form, rank or model.spec.lora_r)
    draw = torch.Generator().manual_seed(2)
    start = Adapter({name: 0.1 * torch.randn(shape, generator=draw) for name, shape in form.shapes.items()})
    fields = {"phase": phase, "adapter": start, "reference": start if phase == "va" else None, "train": TRAIN}
    return FitTask(**{"run_id": "r", "round": 0, "model": model.spec, "seed": 5, **fields, **changes})


def together(model, asked, load=shard, hear=lambda status: None):
    learner = ClientsLearner(Models.holding(model))
    assert isinstance(learner, SeveralAtOnce)
    return learner.fit_together(asked, CLIENTS, load, hear)


def require_alike(found, model, asked):
    """Two float32 ways to the same update: within a thousandth of the way that it went."""
    for update in found:
        alone = GenericLearner(Models.holding(model)).fit(asked, shard(update.client_id), lambda status: None)
        mine, theirs = update.adapter.load(), alone.adapter.load()
        assert mine.form == theirs.form
        assert mine.distance(theirs) < 1e-3 * theirs.distance(asked.trained)
        assert update.report.model_copy(update={"tokens_per_second": 1.0, "first_loss": 1.0}) == (
            alone.report.model_copy(update={"tokens_per_second": 1.0, "first_loss": 1.0})
        )
        assert update.report.first_loss == pytest.approx(alone.report.first_loss, rel=1e-5)
        assert update.contribution.avg_loss == pytest.approx(alone.contribution.avg_loss, rel=1e-4)
        assert update.contribution.num_samples == alone.contribution.num_samples
        assert (update.control is None) == (alone.control is None)
        update.require_answers(asked)


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_the_updates_are_those_of_each_client_alone(tiny_model, phase):
    asked = task(tiny_model, phase)
    found = together(tiny_model, asked)
    assert [update.client_id for update in found] == list(CLIENTS)
    require_alike(found, tiny_model, asked)


def test_corrections_and_a_wider_adapter_are_each_clients_own(tiny_model):
    correction = OwnCorrection(Adapter({name: torch.full(s, 1e-3) for name, s in tiny_model.form.shapes.items()}))
    asked = task(tiny_model, rank=6)
    require_alike(together(tiny_model, asked), tiny_model, asked)
    corrected = task(tiny_model, corrections=correction)
    found = together(tiny_model, corrected)
    require_alike(found, tiny_model, corrected)
    assert {tuple(update.control.load().form.shapes) for update in found} == {tuple(tiny_model.form.shapes)}


def test_the_same_question_gives_the_same_bytes_also_after_another(tiny_model):
    """A learner keeps what it has made for a training: a resumed run has none of it."""
    asked, learner = task(tiny_model), ClientsLearner(Models.holding(tiny_model))
    learner.fit_together(task(tiny_model, seed=9), CLIENTS, shard, lambda status: None)
    used = learner.fit_together(asked, CLIENTS, shard, lambda status: None)
    fresh = together(tiny_model, asked)
    assert [each.adapter.sha256 for each in used] == [each.adapter.sha256 for each in fresh]


def test_a_generic_model_trains_one_after_another_to_the_same_bytes(tiny_model_path):
    model = load_model(model_spec(tiny_model_path, GENERIC))
    asked = task(model)
    for update in together(model, asked):
        alone = GenericLearner(Models.holding(model)).fit(asked, shard(update.client_id), lambda status: None)
        assert update.adapter.sha256 == alone.adapter.sha256


def test_a_client_whose_shard_is_spoilt_fails_alone_and_the_disk_of_the_server_is_no_clients_failure(tiny_model):
    def spoilt(error):
        def load(client):
            if client == 2:
                raise error
            return shard(client)

        return load

    first, second, third = together(tiny_model, task(tiny_model), load=spoilt(DataError("the shard is torn")))
    assert isinstance(second, ClientFailure)
    assert (second.client_id, second.reason) == (2, "the shard is torn")
    require_alike([first, third], tiny_model, task(tiny_model))
    with pytest.raises(StorageError):
        together(tiny_model, task(tiny_model), load=spoilt(StorageError("the disk is full")))


def test_what_ends_the_common_training_is_the_failure_of_all_of_them(tiny_model):
    def stop(status):
        if status.step == 2:
            raise MemoryError("out of memory")

    found = together(tiny_model, task(tiny_model), hear=stop)
    assert [type(answer) for answer in found] == [ClientFailure] * 3
    assert {answer.reason for answer in found} == {"MemoryError: out of memory"}


def test_clients_of_other_ranks_train_with_their_own_kind(tiny_model):
    spec = tiny_model.spec.of_rank(2)
    models = Models.holding(tiny_model)
    ranks = (4, 0, 2, 0, 0, 2)
    asked = task(tiny_model, train=TRAIN.model_copy(update={"lower_ranks": True}))
    found = ClientsLearner(models, ranks).fit_together(asked, CLIENTS, shard, lambda status: None)
    assert models.of(spec).spec == spec
    shapes = [min(update.adapter.form.shapes[next(iter(update.adapter.form.shapes))]) for update in found]
    assert shapes == [4, 2, 2]
    for update in found:
        alone = ClientsLearner(models, ranks).fit(asked, shard(update.client_id), lambda status: None)
        assert update.adapter.load().distance(alone.adapter.load()) < 1e-3


def test_heartbeats_of_all_clients_are_heard_step_by_step(tiny_model):
    heard = []
    together(tiny_model, task(tiny_model), hear=heard.append)
    for client in CLIENTS:
        own = [status for status in heard if status.client_id == client]
        steps = 2 * -(-(client + 3) // 2)
        assert [status.step for status in own if status.state == "training"][1:] == list(range(1, steps + 1))
        assert own[-1].state == "done"


def test_a_client_that_diverges_is_a_failure_among_updates(tiny_model):
    class Corrections:
        def of(self, client):
            size = 3e38 if client == 2 else 1e-3
            return Adapter({name: torch.full(shape, size) for name, shape in tiny_model.form.shapes.items()})

    found = together(tiny_model, dataclasses.replace(task(tiny_model), corrections=Corrections()))
    assert [isinstance(answer, ClientFailure) for answer in found] == [False, True, False]
    assert "not finite at step 1" in found[1].reason
