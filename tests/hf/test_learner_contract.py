"""The contract of learners, on one that is made of real trainers of the pinned TRL."""

import pytest

from fccl.hf.learner import TrainerLearner
from fccl.testing.learner import LearnerContract, Subject
from tests.hf import made

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]  # some forty trainings


class TestTrainers(LearnerContract):
    """Learning rate and batches are the trainer's own, so what the suite asks of the task's is left out."""

    @pytest.fixture
    def subject(self, tiny_model, tiny_model_path, tmp_path):
        def trainers(ranks):
            usual = {"per_device_train_batch_size": 2}
            sft = made.sft_trainer(tiny_model_path, tmp_path / "sft", **usual)
            return TrainerLearner({"sft": sft, "va": made.dpo_trainer(tiny_model_path, tmp_path / "va", **usual)})

        return Subject(
            trainers,
            model=made.spec(tiny_model_path),
            train=made.TRAIN,
            start=made.random_adapter(tiny_model.form, 1),
            other=made.random_adapter(tiny_model.form, 2),
            shard=made.SHARD,
            lora=False,
            measures=False,
            corrects=False,
        )
