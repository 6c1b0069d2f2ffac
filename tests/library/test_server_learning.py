"""Server learning from settings to a run: the same trainer as the clients', whatever LoRA is aggregated by."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fccl
from fccl.aggregation.protocol import Parts
from fccl.aggregation.rules import aggregation
from fccl.config import load_settings
from fccl.data.shards import ClientShard
from fccl.errors import SettingsError
from fccl.federation.kept_rounds import kept_round
from fccl.model.loading import Models
from fccl.paths import LogPaths
from fccl.specs import named_seed
from fccl.training.learner import GenericLearner

SMALL = {"max_sft_examples": 60, "max_va_examples": 30, "fed_rounds": 1, "threads": 1, "learn_epochs": 1}


@pytest.fixture(autouse=True)
def folder(small_run, tmp_path, monkeypatch):
    """With prepared data and no run."""
    shutil.copytree(small_run / "data", tmp_path / "data")
    monkeypatch.chdir(tmp_path)


def test_a_run_is_what_the_clients_trainer_makes_of_each_aggregate_on_the_learn_split():
    run = fccl.FederatedRun(**SMALL, aggregation="fedprox", prox_mu=0.5, learn_lr=0.001)
    found, settings = list(run), run.settings
    data = fccl.prepare(**{name: SMALL[name] for name in ("max_sft_examples", "max_va_examples")})
    examples = ClientShard(0, data.examples("learn", "sft"), data.examples("learn", "va"))
    for number, result in enumerate(found):
        kept, record = kept_round(LogPaths(Path("logs")), number), result.record
        parts = Parts(record.weights, [update.adapter for update in kept.updates()])
        aggregate = aggregation("fedavg").aggregate(kept.adapter, parts, kept.server).adapter
        train = kept.task.train.model_copy(update={"learning_rate": 0.001, "prox_mu": 0.0, "epochs": 1})
        task = replace(kept.task, adapter=aggregate, train=train, seed=named_seed(settings.seed, "server learning"))
        again = GenericLearner(Models()).fit(task, examples, lambda status: None)
        assert again.adapter.load().sha256 == record.adapter_sha256 != record.learning.aggregate_sha256
        assert record.learning.examples == len(examples.of(record.phase)) == (3, 1)[number]
        assert record.learning.before.examples == record.validation.examples
        assert kept.inputs.learn == train


@pytest.mark.parametrize("form", ["exact", "freeze_a"])
def test_it_goes_with_every_way_to_aggregate_lora(form):
    before = None
    for result in fccl.FederatedRun(**SMALL, lora_aggregation=form):
        after, aggregate = result.state.adapter, result.record.learning.aggregate_sha256
        assert after.sha256 != aggregate
        before = before or result.inputs.task.adapter
        if form == "freeze_a":
            assert all(torch.equal(after.tensors[name], a) for name, a in before.tensors.items() if ".lora_A." in name)


def test_a_rate_without_epochs_is_refused_as_an_argument_and_a_server_learns_only_where_it_is_asked_to():
    with pytest.raises(SettingsError, match="learn-lr has no effect without LEARN_EPOCHS") as caught:
        fccl.FederatedRun(learn_lr=0.1)
    assert "LEARN_EPOCHS that is not 0" in caught.value.hint
    with pytest.raises(SettingsError, match="LEARN_EPOCHS=-1: allowed is a whole number >= 0"):
        load_settings({"learn_epochs": -1})
    assert load_settings().learn_spec("sft") is None
    asked = load_settings({"learn_epochs": 2, "sft_lr": 0.01})
    assert (asked.learn_spec("sft").learning_rate, asked.learn_spec("sft").epochs) == (0.01, 2)
