"""DP-SGD at a client: what the optimiser sees, and what it cannot see. Every engine, instructions and pairs."""

import dataclasses
import math

import pytest
import torch

from fccl.adapters.adapter import Adapter
from fccl.data.shards import ClientShard
from fccl.errors import DataError
from fccl.messages import ByExample, FitTask
from fccl.model.encoding import encode
from fccl.model.language_model import GPT2
from fccl.model.loading import Models, load_model
from fccl.model.objectives import objective_for
from fccl.privacy.mechanism import tag_of
from fccl.privacy.secrets import Secret
from fccl.privacy.spec import PrivacySpec
from fccl.specs import ModelSpec, TrainSpec
from fccl.training.by_example import NOISE, NoisedGradients, train_by_example
from fccl.training.engines import learner_for
from fccl.training.loop import train
from fccl.training.objective import ObjectiveUnderModel
from tests.training.exact import EXAMPLES, SFT, VA, random_adapter

TRAIN = TrainSpec(epochs=2, learning_rate=5e-3, batch_size=3, warmup=0.1, max_grad_norm=1.0)
SPEC = PrivacySpec(where="client", unit="example", clip=0.1, noise=1.0, epsilon=8.0, delta=1e-5)
PLACES = [6, 0, 3, 1, 5]


def draws(*names, secret=b"s" * 32):
    return Secret(secret).draws("run", 0, *names)


def objective_of(model, phase):
    rows = encode(model.tokenizer, phase, EXAMPLES[phase], 128)
    model.load(random_adapter(model.form, seed=1))
    reference = model.response_log_probs(rows) if phase == "va" else None
    model.load(random_adapter(model.form, seed=2))
    return objective_for(phase, rows, reference)


def loss_of(model, objective, spec=SPEC, train_spec=TRAIN, factors=None):
    return NoisedGradients(model, objective, factors or model.factors, spec, train_spec, draws)


def alone(model, objective, place):
    """The gradient of one example's mean loss, flat."""
    gradient = ObjectiveUnderModel(model, objective).at([place]).gradient
    return torch.cat([gradient[name].reshape(-1) for name in model.factors])


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_the_sum_is_that_of_each_examples_own_mean_gradient_clipped(exact_model, phase):
    objective = objective_of(exact_model, phase)
    gradients = [alone(exact_model, objective, place) for place in PLACES]
    norms = sorted(float(gradient.norm()) for gradient in gradients)
    for clip in (norms[0] / 2, norms[2], 2 * norms[-1]):
        expected = sum(gradient * min(1.0, clip / float(gradient.norm())) for gradient in gradients)
        found = loss_of(exact_model, objective, SPEC.model_copy(update={"clip": clip})).clipped(PLACES)
        assert float((found - expected).norm() / expected.norm()) < 1e-6


@pytest.mark.parametrize("phase", ["sft", "va"])
@pytest.mark.parametrize("at_a_time", [1, 2, 50])
def test_micro_batches_have_the_same_sum(exact_model, phase, at_a_time):
    objective = objective_of(exact_model, phase)
    micro = TRAIN.model_copy(update={"micro_batch_size": at_a_time, "batch_size": 50})
    whole, parts = (loss_of(exact_model, objective, train_spec=each).clipped(PLACES) for each in (TRAIN, micro))
    assert float((whole - parts).norm() / whole.norm()) < 1e-11


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_the_gradient_is_the_noised_sum_over_the_expected_batch(exact_model, phase):
    objective = objective_of(exact_model, phase)
    loss = loss_of(exact_model, objective)
    for step, places in enumerate((PLACES, [2], [])):
        total = loss.clipped(places)
        found = loss.at(places)
        flat = torch.cat([found.gradient[name].reshape(-1) for name in exact_model.factors])
        noise = torch.from_numpy(draws(NOISE, step, tag_of((), total)).normals(len(total)))
        assert torch.allclose(3 * flat, total + 0.1 * noise, atol=1e-6)
        assert found.loss == 0.0
        assert loss.count(places) == 1


def test_another_sum_has_other_noise(exact_model):
    """Else two answers of unlike data could be subtracted."""
    objective = objective_of(exact_model, "sft")
    one, other = (loss_of(exact_model, objective).at(places) for places in ([0, 1], [0, 2]))
    name = next(iter(exact_model.factors))
    assert float((one.gradient[name] - other.gradient[name]).abs().max()) > 0.01


def test_frozen_factors_have_no_part_in_the_norm(exact_model):
    objective = objective_of(exact_model, "sft")
    moved = {name: factor for name, factor in exact_model.factors.items() if ".lora_B." in name}
    gradients = []
    for place in PLACES:
        found = ObjectiveUnderModel(exact_model, objective).at([place]).gradient
        gradients.append(torch.cat([found[name].reshape(-1) for name in moved]))
    expected = sum(gradient * min(1.0, 0.1 / float(gradient.norm())) for gradient in gradients)
    found = loss_of(exact_model, objective, factors=moved).clipped(PLACES)
    assert torch.allclose(found, expected, atol=1e-9)


def test_without_clip_and_noise_it_is_the_training_without_privacy(exact_model):
    """Of pairs, whose mean is by example in both, and of batches that draw all of them."""
    objective = objective_of(exact_model, "va")
    whole = TRAIN.model_copy(update={"batch_size": 50})
    quiet = SPEC.model_copy(update={"clip": 1e4, "noise": 1e-16})
    start = random_adapter(exact_model.form, seed=2)
    task = FitTask("run", 0, "va", start, start, exact_model.spec, whole, seed=5, privacy=quiet)
    found = []
    for private in (True, False):
        exact_model.load(start)
        if private:
            train_by_example(exact_model, objective, task, exact_model.factors, lambda report: None, draws)
        else:
            train(exact_model.factors, ObjectiveUnderModel(exact_model, objective), whole, 5)
        found.append(torch.cat([factor.detach().reshape(-1) for factor in exact_model.factors.values()]))
    moved = found[1] - start.vector
    assert float((found[0] - found[1]).norm() / moved.norm()) < 1e-6


@pytest.fixture(scope="module")
def model(tiny_model_path):
    targets = {"lora_r": 4, "lora_alpha": 8.0, "lora_targets": "all-linear"}
    return load_model(ModelSpec(name=str(tiny_model_path), max_length=128, engine=GPT2, **targets))


def task_of(model, phase="sft", **changes):
    start = random_adapter(model.form, seed=3)
    reference = start if phase == "va" else None
    fields = {"train": TRAIN, "seed": 5, "privacy": SPEC} | changes
    return FitTask("run", 0, phase, start, reference, model.spec, **fields)


def fit(model, task, secret=b"s" * 32, shard=None, hear=lambda status: None):
    learner = learner_for(Models.holding(model))
    assert isinstance(learner, ByExample)
    return learner.fit_by_example(
        task, shard or ClientShard(2, SFT, VA), hear, lambda *names: draws(*names, secret=secret)
    )


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_the_update_follows_from_the_secret_and_not_from_the_seed(model, phase):
    one = fit(model, task_of(model, phase)).adapter
    assert fit(model, task_of(model, phase)).adapter.sha256 == one.sha256
    assert fit(model, task_of(model, phase, seed=6)).adapter.sha256 == one.sha256
    assert fit(model, task_of(model, phase), b"t" * 32).adapter.sha256 != one.sha256


def test_other_examples_are_drawn_in_other_batches(model):
    """One more example changes who is drawn beside it: answers of unlike data share no randomness."""
    task = task_of(model)
    one = fit(model, task)
    other = fit(model, task, shard=ClientShard(2, SFT[:-1], VA))
    assert one.adapter.load().distance(other.adapter.load()) > 0


def test_no_heartbeat_and_no_figure_has_a_loss(model):
    heard = []
    update = fit(model, task_of(model), hear=heard.append)
    assert {status.loss for status in heard} <= {None, 0.0}
    assert update.contribution.avg_loss == 0.0
    assert update.report.first_loss == 0.0


def test_frozen_factors_stay_to_the_bit_and_fedprox_pulls(model):
    task = task_of(model, train=TRAIN.model_copy(update={"freeze_a": True}))
    found = fit(model, task).adapter.load().tensors
    for name, start in task.adapter.tensors.items():
        assert torch.equal(found[name], start) == (".lora_A." in name)
    free, pulled = (
        fit(model, task_of(model, train=TRAIN.model_copy(update={"prox_mu": mu, "max_grad_norm": 1e9})))
        for mu in (0.0, 1e4)
    )
    start = task.adapter
    assert pulled.adapter.load().distance(start) < free.adapter.load().distance(start)


def test_examples_whose_gradients_are_not_finite_do_not_end_the_training(model):
    """An error that depends on one example would tell of it."""
    task = task_of(model)
    huge = Adapter({name: tensor * 1e20 for name, tensor in task.adapter.tensors.items()})
    update = fit(model, dataclasses.replace(task, adapter=huge))
    assert math.isfinite(float(update.adapter.load().vector.sum()))


def test_a_client_without_examples_has_nothing_to_train_on(model):
    with pytest.raises(DataError, match="client 2 has no instructions"):
        fit(model, task_of(model), shard=ClientShard(2, (), VA))


def test_a_task_without_differential_privacy_is_no_task_for_it(model):
    with pytest.raises(ValueError, match="no differential privacy"):
        fit(model, task_of(model, privacy=None))
