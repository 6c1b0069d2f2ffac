"""Trainers that cannot take part, each with one line, before anything is waited for."""

import pytest
import torch
from datasets import Dataset, IterableDataset
from transformers import Trainer, TrainingArguments

from fccl.errors import DataError, SettingsError
from fccl.hf import federate
from fccl.hf.checks import precision_line
from fccl.hf.lora import factors_of
from tests.hf import made

pytestmark = pytest.mark.filterwarnings("ignore")
ROWS = Dataset.from_list([{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}])


@pytest.fixture
def make(tiny_model_path, tmp_path):
    def trainer(data=ROWS, model=None, **changes):
        arguments = TrainingArguments(str(tmp_path / "out"), use_cpu=True, report_to="none")
        return Trainer(model or made.lora(tiny_model_path), arguments, train_dataset=data, **changes)

    return trainer


def refused(kind, said, **trainers):
    with pytest.raises(kind, match=said) as error:
        federate(client_id=0, **trainers)
    assert error.value.hint


def test_no_trainer_and_something_else_are_refused():
    refused(SettingsError, "federate was given no trainer")
    refused(SettingsError, "sft=str is no transformers Trainer", sft="trainer")


def test_a_dataset_that_is_empty_or_cannot_be_counted_is_refused(make):
    refused(DataError, "va: the trainer's dataset is empty", va=make([]))
    refused(DataError, "sft: the trainer's dataset has no length", sft=make(None))
    stream = IterableDataset.from_generator(lambda: iter(ROWS))
    bounded = make(ROWS)
    bounded.train_dataset = stream
    refused(DataError, "has no length", sft=bounded)


def test_an_optimiser_that_would_go_on_from_round_to_round_is_refused(make, tiny_model_path):
    model = made.lora(tiny_model_path)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    said = "sft: the trainer's optimiser or schedule is an object"
    refused(SettingsError, said, sft=make(model=model, optimizers=(optimiser, None)))


def test_a_model_that_is_made_for_every_training_is_refused(tiny_model_path, tmp_path):
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    trainer = Trainer(model_init=lambda: made.lora(tiny_model_path), args=arguments, train_dataset=ROWS)
    refused(SettingsError, "sft: model_init makes another model for every training", sft=trainer)


def test_packed_rows_are_refused(tiny_model_path, tmp_path):
    trainer = made.sft_trainer(tiny_model_path, tmp_path, packing=True, packing_strategy="wrapped")
    refused(DataError, "sft: packed rows are no examples", sft=trainer)


def test_a_reference_model_of_its_own_is_refused(tiny_model_path, tmp_path):
    trainer = made.dpo_trainer(tiny_model_path, tmp_path)
    trainer.ref_model = made.base(tiny_model_path)
    refused(SettingsError, "va: the trainer has a reference model of its own", va=trainer)


def test_fp16_training_of_fp16_factors_is_refused(make, tiny_model_path):
    trainer = make(model=made.lora(tiny_model_path).half())
    trainer.args.fp16 = True
    refused(SettingsError, "sft: fp16=True cannot train factors in float16", sft=trainer)


def test_narrow_factors_are_said(tiny_model_path):
    model = made.lora(tiny_model_path)
    assert precision_line(factors_of(model)) == ""
    assert "LoRA is in bfloat16: the round's float32 adapter is rounded" in precision_line(
        factors_of(model.to(torch.bfloat16))
    )


def test_settings_are_those_of_a_client(make):
    refused(SettingsError, "unknown setting CLIENT_IDD", sft=make(), client_idd=3)
    refused(SettingsError, "federate does not read sft_data", sft=make(), sft_data="mine.jsonl")
