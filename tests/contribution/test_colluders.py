"""Colluders against the built-in model and real updates: one client attacks, another is sacrificed to make the attack
look useful.
"""

from itertools import permutations

import pytest
import torch

from fccl.adapters.adapter import Adapter
from fccl.apps.main import main
from fccl.config import load_settings
from fccl.contribution.tempered import Tempered
from fccl.contribution.verified import Verified
from fccl.data.examples import PreferencePair, SftExample, read_examples
from fccl.data.shards import load_shard
from fccl.evaluation.validation import Validator, VerificationLoss
from fccl.federation.bounds import measured, too_long
from fccl.messages import ClientUpdate, FitTask
from fccl.model.loading import Models, load_model
from fccl.paths import DataPaths
from fccl.records.run import MedianNorms, TrainingReport
from fccl.training.engines import learner_for

CLIENTS = 3
FACTORS = (-1000.0, -10.0, -1.0, 0.0, 0.1, 3.0, 10.0, 50.0, 99.0, 1000.0)


@pytest.fixture(scope="module")
def first_round(tmp_path_factory):
    """The loss, the task of the quickstart's first round on less data, and what its three clients answer."""
    data = tmp_path_factory.mktemp("colluders") / "data"
    arguments = {"max_sft_examples": 600, "max_va_examples": 120, "data_dir": str(data), "threads": 1}
    assert (
        main(
            [
                "prepare",
                *(f"--{name.replace('_', '-')}={value}" for name, value in arguments.items() if name != "threads"),
            ]
        )
        == 0
    )
    settings, paths = load_settings(arguments), DataPaths(data)
    model = load_model(settings.model_spec())
    sft, va = (
        read_examples(paths.server_split("learn", "sft"), SftExample),
        read_examples(paths.server_split("learn", "va"), PreferencePair),
    )
    preference = settings.train_spec("va").preference
    loss = VerificationLoss(Validator(model, sft, va, preference=preference, batch_size=settings.eval_batch_size), 32)
    start = model.initial_adapter(settings.seed)
    task = FitTask("run", 0, "sft", start, None, settings.model_spec(), settings.train_spec("sft"), settings.seed)
    learner = learner_for(Models.holding(model))
    return loss, task, [learner.fit(task, load_shard(paths, client), lambda status: None) for client in range(CLIENTS)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Verified, Tempered])
@pytest.mark.parametrize(("attacker", "accomplice"), list(permutations(range(CLIENTS), 2)))
def test_whatever_the_accomplice_sends_the_attacker_gains_nothing_by_it(first_round, kind, attacker, accomplice):
    loss, task, updates = first_round
    rule = kind(loss)
    alone = weights(rule, task, updates, {attacker: -3.0})
    for factor in FACTORS:
        together = weights(rule, task, updates, {attacker: -3.0, accomplice: factor})
        assert together[attacker] <= alone[attacker] + 0.05, factor


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Verified, Tempered])
def test_without_an_attack_the_mean_of_these_weights_is_no_worse_than_by_samples(first_round, kind):
    loss, task, updates = first_round
    found = kind(loss).weigh(task, updates).verification
    assert found.loss_weights <= found.loss_prior


def weights(rule, task, updates, factors):
    """By client, the weights of a round in which some multiply their change; who is left out has none."""
    sent = [multiplied(update, task.adapter, factors.get(update.client_id, 1.0)) for update in updates]
    left_out = too_long(sent, 100, MedianNorms(change=None, control=None))
    kept = [update for update in sent if update.client_id not in left_out]
    found = rule.weigh(task, kept).weights
    return dict.fromkeys(range(CLIENTS), 0.0) | dict(zip((update.client_id for update in kept), found, strict=True))


def multiplied(update, start, factor):
    trained = update.adapter.load().tensors
    adapter = Adapter({name: torch.lerp(before, trained[name], factor) for name, before in start.tensors.items()})
    report = TrainingReport(tokens=0, tokens_per_second=0, steps=0)
    return measured(
        ClientUpdate("run", update.client_id, 0, "sft", adapter, update.contribution, report), adapter, start
    )
