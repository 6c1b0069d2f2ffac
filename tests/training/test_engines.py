import shutil
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
from pydantic import ValidationError

from fccl.data.examples import SftExample
from fccl.data.shards import ClientShard
from fccl.messages import ClientFailure, ClientUpdate, FitTask, Worker
from fccl.model.loading import ENGINES, Models
from fccl.specs import Engine, TrainSpec
from fccl.training.engines import learner_for
from fccl.training.learner import GenericLearner


def test_every_engine_that_a_spec_may_name_is_there():
    assert ENGINES.keys() == set(get_args(Engine))


def test_a_spec_of_an_engine_that_is_not_there_cannot_be_built(tiny_model):
    with pytest.raises(ValidationError, match="abacus"):
        type(tiny_model.spec).model_validate(tiny_model.spec.model_dump() | {"engine": "abacus"})


def test_a_model_computes_with_the_engine_that_its_spec_names(tiny_model):
    other = tiny_model.spec.model_copy(update={"engine": "gpt2"})
    assert Models().of(other).engine == "gpt2"


def test_the_learner_trains_the_very_model_that_the_application_holds(tiny_model):
    models = Models.holding(tiny_model)
    learner = learner_for(models, (2,))
    assert isinstance(learner, GenericLearner)
    assert models.of(tiny_model.spec) is learner.models.of(tiny_model.spec) is tiny_model


def test_a_model_is_loaded_once(tiny_model):
    models, narrow = Models.holding(tiny_model), tiny_model.spec.of_rank(1)
    assert models.of(narrow) is models.of(narrow)
    assert models.of(narrow) is not tiny_model


SHARD = ClientShard(0, tuple(SftExample(f"What is {n}?", f"It is {n}.") for n in range(4)), ())
TRAIN = TrainSpec(epochs=1, learning_rate=5e-3, batch_size=2, warmup=0, max_grad_norm=1.0, threads=1)


def answer(model, models, engine="gpt2", precision="int8"):
    """What a client of these models says to a task of this model, with its adapter."""
    spec = model.spec.model_copy(update={"engine": engine, "base_precision": precision})
    task = FitTask("run", 0, "sft", model.initial_adapter(1), None, spec, TRAIN, seed=7)
    return Worker(learner_for(models), lambda client_id: SHARD).answer(task, 0, lambda status: None)


@pytest.mark.parametrize(("engine", "precision"), [("gpt2", "int8"), ("auto", "bnb-int8"), ("auto", "bnb-nf4")])
def test_a_client_trains_at_the_precision_that_the_task_names_to_the_same_bytes(tiny_model, engine, precision):
    first, second = (answer(tiny_model, Models(), engine, precision) for _ in range(2))
    exact = FitTask("run", 0, "sft", tiny_model.initial_adapter(1), None, tiny_model.spec, TRAIN, seed=7)
    other = learner_for(Models.holding(tiny_model)).fit(exact, SHARD, lambda status: None)
    assert isinstance(first, ClientUpdate)
    assert first.adapter.sha256 == second.adapter.sha256 != other.adapter.sha256
    assert first.contribution.avg_loss == pytest.approx(other.contribution.avg_loss, rel=0.05)


def test_a_client_that_cannot_keep_to_the_precision_says_so_in_one_line(tiny_model, monkeypatch):
    monkeypatch.setattr("fccl.model.precision.own_device", lambda: torch.device("cuda"))
    said = answer(tiny_model, Models())
    assert said == ClientFailure(
        0, "BASE_PRECISION=int8: int8 products are computed on a CPU, and this process has a GPU"
    )


def test_a_client_without_bitsandbytes_says_so_in_one_line(tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    said = answer(tiny_model, Models(), "auto", "bnb-nf4")
    assert said == ClientFailure(0, "BASE_PRECISION=bnb-nf4 needs bitsandbytes, which is not installed")


def mapped(file):
    """The address ranges where this process has mapped a file, and the kilobytes of them that it has copied."""
    ranges, copied, inside = [], 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        fields = line.split()
        if "-" in fields[0]:
            inside = fields[-1] == str(file)
            if inside:
                ranges.append(tuple(int(part, 16) for part in fields[0].split("-")))
        elif inside and fields[0] == "Anonymous:":
            copied += int(fields[1])
    return ranges, copied


@pytest.mark.skipif(not Path("/proc/self/smaps").is_file(), reason="Linux alone says which pages are whose")
def test_the_frozen_weights_stay_pages_of_the_model_s_file(tiny_model, tmp_path):
    """So processes of a machine share them. A copy, or a write to one of them, would be a client's own memory."""
    folder = shutil.copytree(tiny_model.spec.name, tmp_path / "model")
    spec = tiny_model.spec.model_copy(update={"name": str(folder)})
    models = Models()
    model = models.of(spec)
    task = FitTask("run", 0, "sft", model.initial_adapter(1), None, spec, TRAIN, seed=7)
    update = learner_for(models).fit(task, SHARD, lambda status: None)
    assert model.engine == tiny_model.engine
    assert update.report.steps == 2
    ranges, copied = mapped((folder / "model.safetensors").resolve())
    elsewhere = [
        name
        for name, weight in model.weights().items()
        if not any(start <= weight.data_ptr() < stop for start, stop in ranges)
    ]
    assert (elsewhere, copied) == ([], 0)
