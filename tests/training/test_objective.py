"""A step in parts: the loss and the gradient of a batch are the sums of its micro-batches', in float64 to the last bits
that sums in another order leave.
"""

import pytest

from fccl.data.shards import ClientShard
from fccl.messages import FitTask
from fccl.model.encoding import encode
from fccl.model.language_model import GPT2
from fccl.model.loading import Models, load_model
from fccl.model.objectives import objective_for
from fccl.specs import ModelSpec, TrainSpec
from fccl.training.clients_learner import ClientsLearner
from fccl.training.learner import GenericLearner
from fccl.training.objective import ObjectiveUnderModel
from tests.training.exact import EXAMPLES, SFT, VA, random_adapter

SPEC = TrainSpec(epochs=2, learning_rate=5e-3, batch_size=3, warmup=0.1, max_grad_norm=1.0, dpo_beta=0.1)


@pytest.mark.parametrize("phase", ["sft", "va"])
@pytest.mark.parametrize("at_a_time", [1, 2, 3, 7, 50])
def test_the_gradient_of_a_batch_is_the_sum_of_its_micro_batches(exact_model, phase, at_a_time):
    model = exact_model
    rows = encode(model.tokenizer, phase, EXAMPLES[phase], 128)
    model.load(random_adapter(model.form, seed=1))
    reference = model.response_log_probs(rows) if phase == "va" else None
    model.load(random_adapter(model.form, seed=2))
    objective, places = objective_for(phase, rows, reference), [6, 0, 3, 1, 5]
    whole = ObjectiveUnderModel(model, objective).at(places)
    found = ObjectiveUnderModel(model, objective, at_a_time=at_a_time).at(places)
    assert found.loss == pytest.approx(whole.loss, rel=1e-12)
    for name, gradient in whole.gradient.items():
        scale = float(gradient.abs().max())
        assert scale > 0, name
        assert float((found.gradient[name] - gradient).abs().max()) <= 1e-11 * scale, name


def task(model, phase, micro):
    start = random_adapter(model.form, seed=3)
    spec = SPEC.model_copy(update={"micro_batch_size": micro})
    reference = start if phase == "va" else None
    return FitTask("run", 0, phase, start, reference, model.spec, spec, seed=5)


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_a_client_sends_the_update_of_whole_batches(exact_model, phase):
    """Adam divides by the gradient's size, so the update has fewer equal digits than the gradient."""
    learner, shard = GenericLearner(Models.holding(exact_model)), ClientShard(0, SFT, VA)
    before = random_adapter(exact_model.form, seed=3)
    whole, found = (learner.fit(task(exact_model, phase, micro), shard, lambda status: None) for micro in (0, 2))
    assert found.contribution.avg_loss == pytest.approx(whole.contribution.avg_loss, rel=1e-6)
    assert found.report.steps == whole.report.steps
    assert found.adapter.distance(whole.adapter) < 1e-5 * whole.adapter.distance(before)


def test_a_task_without_micro_batches_is_written_as_before_and_one_with_them_says_so(exact_model):
    assert "micro_batch_size" not in task(exact_model, "sft", 0).terms()["train"]
    assert task(exact_model, "sft", 2).terms()["train"]["micro_batch_size"] == 2
    assert "micro_batch_size" not in SPEC.model_dump_json()


def test_clients_with_micro_batches_train_one_after_the_other(tiny_model_path):
    targets = {"lora_r": 4, "lora_alpha": 8.0, "lora_targets": "all-linear"}
    model = load_model(ModelSpec(name=str(tiny_model_path), max_length=128, engine=GPT2, **targets))
    asked = task(model, "sft", 2)
    found = ClientsLearner(Models.holding(model)).fit_together(
        asked, (0, 1), lambda client: ClientShard(client, SFT[client:], VA), lambda status: None
    )
    alone = GenericLearner(Models.holding(model)).fit(asked, ClientShard(1, SFT[1:], VA), lambda status: None)
    assert found[1].adapter.sha256 == alone.adapter.sha256
