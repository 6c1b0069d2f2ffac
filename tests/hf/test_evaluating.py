"""Requests to evaluate, answered by trainers of the pinned TRL: the built-in client's figures on the same examples."""

from dataclasses import replace

import pytest

from fccl.errors import ModelError
from fccl.evaluation.on_clients import ClientEvaluator
from fccl.hf.evaluating import TrainerEvaluator
from fccl.hf.learner import TrainerLearner
from fccl.messages import EvaluateTask
from fccl.model.loading import Models
from fccl.specs import PreferenceSpec
from tests.hf import made
from tests.hf.made import BETA, SHARD

pytestmark = pytest.mark.filterwarnings("ignore")


def states(status):
    assert (status.state, status.client_id) == ("evaluating", SHARD.client_id)


def asked(path, form, phase, **changes):
    """A request to evaluate one random adapter; in VA rounds against another."""
    reference = made.random_adapter(form, 2) if phase == "va" else None
    adapter, usual = made.random_adapter(form, 1), {"preference": PreferenceSpec(beta=BETA), "threads": 1}
    return EvaluateTask("run", 0, phase, adapter, reference, made.spec(path), 4, **usual | changes)


@pytest.mark.parametrize(("phase", "made_with"), [("sft", {}), ("va", {}), ("va", {"precompute_ref_log_probs": True})])
def test_the_loss_is_the_built_in_clients_on_the_same_examples(tiny_model, tiny_model_path, tmp_path, phase, made_with):
    """Batches of two, which weigh as many tokens or pairs as they have."""
    make = made.sft_trainer if phase == "sft" else made.dpo_trainer
    trainer = make(tiny_model_path, tmp_path / "out", per_device_eval_batch_size=2, **made_with)
    request = asked(tiny_model_path, tiny_model.form, phase)
    found = TrainerEvaluator(TrainerLearner({phase: trainer})).answer(request, SHARD, states)
    expected = ClientEvaluator(Models.holding(tiny_model)).answer(request, SHARD, states)
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)
    assert (found.units, found.examples, found.client_id) == (expected.units, expected.examples, expected.client_id)


def test_an_evaluation_between_two_rounds_changes_neither(tiny_model, tiny_model_path, tmp_path):
    """Cached log-probabilities of the evaluation's reference are made anew for the round's."""
    trainer = made.dpo_trainer(tiny_model_path, tmp_path / "out", precompute_ref_log_probs=True)
    learner, task = TrainerLearner({"va": trainer}), made.task(tiny_model_path, tiny_model.form, "va")
    first = learner.fit(task, SHARD, lambda status: None)
    other = replace(asked(tiny_model_path, tiny_model.form, "va"), reference=made.random_adapter(tiny_model.form, 9))
    TrainerEvaluator(learner).answer(other, SHARD, states)
    again = learner.fit(task, SHARD, lambda status: None)
    assert again.adapter.sha256 == first.adapter.sha256
    assert again.contribution.avg_loss == first.contribution.avg_loss


def test_what_a_trainer_cannot_score_is_one_line(tiny_model, tiny_model_path, tmp_path):
    trainer = made.dpo_trainer(tiny_model_path, tmp_path / "out")
    evaluator = TrainerEvaluator(TrainerLearner({"va": trainer}))
    with pytest.raises(ModelError, match="there is no trainer for FedIT"):
        evaluator.answer(asked(tiny_model_path, tiny_model.form, "sft"), SHARD, states)
    ipo = asked(tiny_model_path, tiny_model.form, "va", preference=PreferenceSpec(loss="ipo", beta=BETA))
    with pytest.raises(ModelError, match=r"the trainer's loss is sigmoid with beta 0\.3, the federation's ipo"):
        evaluator.answer(ipo, SHARD, states)
    scaled = replace(ipo, model=made.spec(tiny_model_path, lora_alpha=16.0))
    with pytest.raises(ModelError, match="is scaled by 2, the federation's by 4"):
        evaluator.answer(scaled, SHARD, states)
