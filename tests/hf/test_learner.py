"""Trainers of the pinned TRL as learners, against the built-in learner."""

from dataclasses import replace

import pytest
import torch
from transformers import Trainer, TrainingArguments

from fccl.errors import DIVERGED, ModelError, PhaseDeclined, TrainingError
from fccl.hf.learner import TrainerLearner
from fccl.hf.lora import REFERENCE, factors_of, read
from fccl.hf.reference import COLUMNS
from fccl.messages import OwnCorrection
from fccl.model.chat_template import template_sha256
from fccl.model.encoding import encode
from fccl.model.loading import Models
from fccl.model.objectives import objective_for
from fccl.specs import TextForm
from fccl.training.engines import learner_for
from fccl.training.objective import ObjectiveUnderModel
from tests.hf import made
from tests.hf.made import SHARD, TRAIN
from tests.model.chats import CHATML, TIGHT

pytestmark = pytest.mark.filterwarnings("ignore")


def unheard(status):
    """Nobody listens."""


@pytest.fixture
def form(tiny_model):
    return tiny_model.form


@pytest.fixture
def give(tiny_model_path, form):
    return lambda phase="sft", number=0, **changes: made.task(tiny_model_path, form, phase, number, **changes)


@pytest.fixture
def trainer(tiny_model_path, tmp_path):
    """A trainer of a phase; `changes` are its arguments."""

    def make(phase="sft", **changes):
        kind = made.sft_trainer if phase == "sft" else made.dpo_trainer
        return kind(tiny_model_path, tmp_path / "out", **changes)

    return make


def fit(trainer, task, phase=None):
    return TrainerLearner({phase or task.phase: trainer}).fit(task, SHARD, unheard)


def same(mine, theirs, task):
    """Whether two updates of a task are one but for rounding."""
    moved = theirs.adapter.load().distance(task.adapter)
    return moved > 0 and mine.adapter.load().distance(theirs.adapter.load()) < 1e-3 * moved


@pytest.mark.parametrize(
    ("phase", "made_with"),
    [("sft", {}), ("va", {}), ("va", {"precompute_ref_log_probs": True}), ("va", {"lora": "peft_config"})],
)
def test_a_step_from_the_same_adapter_on_the_same_examples_is_the_built_in_learners(
    trainer, give, tiny_model, tiny_model_path, phase, made_with
):
    """Whether TRL makes its `ref` adapter itself, has cached what that said, or has none."""
    if made_with.get("lora"):
        made_with = {"model": made.base(tiny_model_path), "peft_config": made.config()}
    task = give(phase)
    mine = fit(trainer(phase, **made_with), task)
    theirs = learner_for(Models.holding(tiny_model)).fit(task, SHARD, unheard)
    assert same(mine, theirs, task)
    mine.require_answers(task)
    assert mine.contribution.avg_loss == pytest.approx(theirs.contribution.avg_loss, rel=1e-4)
    assert mine.report.first_loss == pytest.approx(theirs.report.first_loss, rel=1e-4)
    assert mine.contribution.num_samples == theirs.contribution.num_samples == len(SHARD.of(phase))
    assert (mine.report.tokens, mine.report.steps) == (theirs.report.tokens, theirs.report.steps)


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_a_round_is_the_same_whatever_the_process_did_before(trainer, give, tiny_model_path, phase):
    """Dropout, shuffling, optimiser, schedule and cached references begin anew: a killed script repeats its round."""
    made_with = {
        "model": made.lora(tiny_model_path, lora_dropout=0.2),
        "num_train_epochs": 2,
        "per_device_train_batch_size": 2,
        "lr_scheduler_type": "linear",
    }
    if phase == "va":
        made_with |= {"precompute_ref_log_probs": True, "disable_dropout": False}
    learner = TrainerLearner({phase: trainer(phase, **made_with)})
    first = learner.fit(give(phase, 0, seeds=(3, 4)), SHARD, unheard)
    second = learner.fit(give(phase, 1), SHARD, unheard)
    fresh = made_with | {"model": made.lora(tiny_model_path, lora_dropout=0.2)}
    alone = TrainerLearner({phase: trainer(phase, **fresh)}).fit(give(phase, 1), SHARD, unheard)
    assert second.adapter.load().to_bytes() == alone.adapter.load().to_bytes()
    assert second.contribution.avg_loss == alone.contribution.avg_loss
    assert first.adapter.load().sha256 != second.adapter.load().sha256
    other = learner.fit(give(phase, 2), SHARD, unheard)
    assert other.adapter.load().sha256 != second.adapter.load().sha256, "another round has another seed"


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_the_average_loss_weighs_every_response_token_and_every_pair_alike(trainer, give, tiny_model, phase):
    """With a learning rate that moves nothing it is the loss over the shard, whatever the batches."""
    task = give(phase)
    still = trainer(
        phase,
        learning_rate=0.0,
        num_train_epochs=2,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=1 + (phase == "sft"),
    )
    update = fit(still, task)
    rows = encode(tiny_model.tokenizer, phase, SHARD.of(phase), 128)
    reference = None
    if task.reference is not None:
        tiny_model.load(task.reference)
        reference = tiny_model.response_log_probs(rows)
    tiny_model.load(task.adapter)
    objective = objective_for(phase, rows, reference, TRAIN.preference)
    expected = ObjectiveUnderModel(tiny_model, objective).at(range(len(rows))).loss
    assert update.contribution.avg_loss == pytest.approx(expected, rel=1e-4)
    assert update.report.steps == 2 * (1 if phase == "sft" else 2)


def test_the_reference_is_held_in_trls_ref_adapter_and_is_not_trained(trainer, give):
    dpo, task = trainer("va"), give("va")
    update = fit(dpo, task)
    assert read(factors_of(dpo.model, REFERENCE)).sha256 == task.reference.sha256
    assert read(factors_of(dpo.model)).sha256 == update.adapter.load().sha256
    assert not any(each.requires_grad for each in factors_of(dpo.model, REFERENCE).values())


def test_cached_reference_columns_are_made_anew_for_another_reference_alone(trainer, give):
    dpo = trainer("va", precompute_ref_log_probs=True)
    learner = TrainerLearner({"va": dpo})
    found = []
    for number, seeds in ((0, (1, 2)), (1, (5, 2)), (2, (5, 6))):
        learner.fit(give("va", number, seeds=seeds), SHARD, unheard)
        found.append([dpo.train_dataset[name] for name in COLUMNS])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("phase", ["sft", "va"])
def test_with_freeze_a_the_factors_a_stay_to_the_bit(trainer, give, phase):
    task = give(phase, train=TRAIN.model_copy(update={"freeze_a": True}))
    for name, tensor in fit(trainer(phase), task).adapter.load().tensors.items():
        assert torch.equal(tensor, task.adapter.tensors[name]) == (".lora_A." in name), name


def test_heartbeats_follow_the_steps(trainer, give):
    heard = []
    TrainerLearner({"sft": trainer(per_device_train_batch_size=2)}).fit(give(), SHARD, heard.append)
    assert [(status.state, status.step, status.steps) for status in heard] == [
        ("training", 0, 0),
        ("training", 1, 3),
        ("training", 2, 3),
        ("training", 3, 3),
        ("done", 3, 3),
    ]
    assert {(status.client_id, status.run_id, status.phase) for status in heard} == {(2, "run", "sft")}


def test_a_phase_without_a_trainer_is_declined(give):
    with pytest.raises(PhaseDeclined, match="declines FedVA"):
        TrainerLearner({}).fit(give("va"), SHARD, unheard)


def test_training_that_diverges_is_said_so(trainer, give):
    with pytest.raises(TrainingError, match=DIVERGED):
        fit(trainer(learning_rate=1e30, num_train_epochs=3), give())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train": TRAIN.model_copy(update={"prox_mu": 0.1})}, "does not do PROX_MU=0.1"),
        ({"corrections": OwnCorrection}, "which AGGREGATION=scaffold needs"),
    ],
)
def test_local_training_that_a_trainer_does_not_do_is_refused(trainer, give, change, said):
    task = give()
    if "corrections" in change:
        change = {"corrections": OwnCorrection(task.adapter)}
    with pytest.raises(ModelError, match=said):
        fit(trainer(), replace(task, **change))


def test_another_preference_loss_is_said_once(trainer, give):
    told, train = [], TRAIN.model_copy(update={"dpo_beta": 0.7})
    learner = TrainerLearner({"va": trainer("va")}, told.append)
    for number in (0, 1):
        learner.fit(give("va", number, train=train), SHARD, unheard)
    assert told == ["the trainer's loss is sigmoid with beta 0.3, the federation's sigmoid with beta 0.7"]


def test_a_chat_template_that_is_not_the_runs_is_said_once(trainer, give):
    told, mine = [], trainer()
    mine.processing_class.chat_template = CHATML
    text = TextForm(prompt="chat", template=template_sha256(mine.processing_class))
    learner = TrainerLearner({"sft": mine}, told.append)
    for number, template in enumerate((CHATML, TIGHT, TIGHT)):
        mine.processing_class.chat_template = template
        task = give("sft", number)
        learner.fit(replace(task, model=task.model.model_copy(update={"text": text})), SHARD, unheard)
        assert len(told) == (template == TIGHT)
    assert told[0].startswith("the trainer's chat template is another than the run's")


def plain_trainer(model, folder, rows, **changes):
    """A `Trainer` of transformers itself, its rows ready for the model."""
    usual = {name: value for name, value in made.ARGUMENTS.items() if name != "max_length"} | changes
    return Trainer(model, TrainingArguments(str(folder), **usual), train_dataset=rows)


@pytest.fixture
def rows(tiny_model):
    """The shard's first example as often as a batch takes: no padding, so that no collator is needed."""
    row = encode(tiny_model.tokenizer, "sft", SHARD.sft, 128)[0][0]
    labels = [-100] * row.prompt_length + list(row.ids[row.prompt_length :])
    return [{"input_ids": list(row.ids), "labels": labels}] * 4


def test_a_plain_transformers_trainer_is_a_learner_too(rows, give, tiny_model, tiny_model_path, tmp_path):
    task = give()
    mine = fit(plain_trainer(made.lora(tiny_model_path), tmp_path, rows), task)
    shard = replace(SHARD, sft=SHARD.sft[:1] * 4)
    theirs = learner_for(Models.holding(tiny_model)).fit(task, shard, unheard)
    assert same(mine, theirs, task)
    assert mine.contribution.avg_loss == pytest.approx(theirs.contribution.avg_loss, rel=1e-4)


def test_reentrant_checkpointing_that_stops_every_gradient_is_one_line(rows, give, tiny_model_path, tmp_path):
    """As a script that sets it up by itself has it; `Trainer` lets the inputs require gradients where it does."""
    model = made.lora(tiny_model_path)
    model.get_base_model().activation_checkpointing_enable({"use_reentrant": True})
    model.get_base_model().disable_input_require_grads()
    with pytest.raises(TrainingError, match="no gradient reaches the trainer's LoRA") as error:
        fit(plain_trainer(model, tmp_path, rows), give())
    assert "enable_input_require_grads" in error.value.hint
