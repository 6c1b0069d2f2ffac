"""Replays: with the run's own rules the bytes that it had; with others what a formula of the test gives."""

import dataclasses

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from fccl.aggregation.rules import aggregation
from fccl.contribution.reported import ContributionRule
from fccl.data.shards import ClientShard
from fccl.errors import FederationError
from fccl.federation.kept_rounds import kept_round, kept_rounds
from fccl.federation.privacy import ClientNoise
from fccl.federation.replay import (
    LEFT_OUT,
    CarriedLearning,
    KeptTransport,
    ReplayedRun,
    aggregated_again,
    ended_with,
    replayable,
)
from fccl.federation.server_learning import ServerLearner
from fccl.privacy.spec import PrivacySpec
from fccl.testing import lora_toy
from fccl.testing.toy import START, TRAIN, ToyLearner, federation, shard
from fccl.training.private import PrivateLearner
from tests.examples import few
from tests.federation.toy_runs import CLIENTS, ROUNDS, conduct, toy_loss, toy_transport

RULES = ["fedavg", "fedadam", "scaffold", "median", "trimmed_mean", "geometric_median", "fedexp"]


def replay(logs, fed, **changes):
    named = dataclasses.replace(fed, run_id=kept_round(logs, max(kept_rounds(logs))).record.run_id)
    return ReplayedRun(logs, named, ROUNDS, **changes)


def bytes_of(results):
    return [result.state.adapter.to_bytes() for result in results]


@pytest.mark.parametrize("name", RULES)
def test_a_replay_with_the_runs_own_rule_has_the_bytes_of_every_round(tmp_path, name):
    fed = federation(aggregation=aggregation(name))
    logs, results = conduct(tmp_path, fed)
    again = list(replay(logs, fed).rounds())
    assert bytes_of(again) == bytes_of(results)
    assert [one.record.weights for one in again] == [one.record.weights for one in results]


@pytest.mark.parametrize("lora", ["svd", "exact", "nearly"])
def test_so_it_has_with_ranks_and_products(tmp_path, lora):
    fed, ranks = lora_toy.lora_federation(lora), (3,) if lora == "nearly" else (3, 1, 2)
    logs, results = conduct(tmp_path, fed, lora_toy.START, lora_toy.LoraLearner(ranks))
    assert bytes_of(replay(logs, fed).rounds()) == bytes_of(results)


@given(
    seed=st.integers(0, 99),
    per_round=st.integers(2, CLIENTS),
    broken=st.sets(st.integers(0, CLIENTS - 1), max_size=1),
    best=st.booleans(),
    ratio=st.sampled_from([0.0, 1.05, 100.0]),
)
@settings(max_examples=few(25))
def test_so_has_any_run_with_its_draws_its_failures_and_its_bounds(
    tmp_path_factory, seed, per_round, broken, best, ratio
):
    plan = {"result_round": "best" if best else "last", "max_update_ratio": ratio, "min_clients": 1}
    fed = dataclasses.replace(federation(per_round=per_round, **plan), validate=toy_loss)
    fed = dataclasses.replace(fed, plan=fed.plan.model_copy(update={"seed": seed}))
    try:
        logs, results = conduct(tmp_path_factory.mktemp("run"), fed, learner=ToyLearner(frozenset(broken)))
    except FederationError:  # a round of which nobody was left: there is no such run
        reject()
    again = list(replay(logs, fed).rounds())
    assert bytes_of(again) == bytes_of(results)
    assert [one.record.excluded for one in again] == [one.record.excluded for one in results]
    assert [one.state.result.sha256 for one in again] == [one.state.result.sha256 for one in results]


def carried_means(results, weights_of):
    """The formula: x <- x + sum_i w_i (u_i - start), each round from where the last one ended."""
    numbers = START.adapter.tensors["w"].double()
    for result in results:
        start = result.inputs.task.adapter.tensors["w"].double()
        changes = [update.adapter.load().tensors["w"].double() - start for update in result.updates]
        numbers = numbers + sum(weight * change for weight, change in zip(weights_of(result), changes, strict=True))
        yield numbers


def test_another_temperature_gives_the_carried_means_of_its_weights(tmp_path):
    logs, results = conduct(tmp_path)
    hot = ContributionRule(temperature=5.0)
    again = list(replay(logs, federation(rule=hot)).rounds())
    expected = carried_means(results, lambda result: hot.weights(result.record.contributions))
    for one, numbers in zip(again, expected, strict=True):
        assert torch.allclose(one.state.adapter.tensors["w"].double(), numbers, atol=1e-5)
        assert one.record.weights == hot.weights(one.record.contributions)
    assert bytes_of(again) != bytes_of(results)


def test_without_a_client_the_others_are_weighed_anew(tmp_path):
    logs, results = conduct(tmp_path)
    again = list(replay(logs, federation(min_clients=1), without=frozenset({1})).rounds())
    assert {one.record.clients for one in again} == {(0, 2, 3)}
    assert [each.reason for one in again for each in one.record.excluded] == [LEFT_OUT] * ROUNDS

    def weights(result):
        said = [result.record.contributions[client] for client in (0, 2, 3)]
        first, *rest = ContributionRule().weights(said)
        return (first, 0.0, *rest)

    *_, numbers = carried_means(results, weights)
    assert torch.allclose(again[-1].state.adapter.tensors["w"].double(), numbers, atol=1e-5)


def test_by_round_every_round_begins_as_it_did(tmp_path):
    logs, _ = conduct(tmp_path)
    again = list(replay(logs, federation(aggregation=aggregation("median")), by_round=True).rounds())
    for number, one in enumerate(again):
        kept = kept_round(logs, number)
        assert one.inputs.task.adapter.sha256 == kept.adapter.sha256
        stack = torch.stack([update.adapter.load().tensors["w"] for update in kept.updates()])
        middle = stack.double().quantile(0.5, dim=0)
        assert torch.allclose(one.state.adapter.tensors["w"].double(), middle, atol=1e-6)


@pytest.mark.parametrize("first", range(ROUNDS))
def test_rounds_that_are_trained_anew_with_nothing_changed_have_the_same_bytes(tmp_path, first):
    fed = federation(aggregation=aggregation("scaffold"))
    logs, results = conduct(tmp_path, fed)
    trained = dataclasses.replace(fed, run_id=results[0].record.run_id)
    again = replay(logs, fed, retrain_from=first, trainers=toy_transport(), trained=trained)
    assert bytes_of(again.rounds()) == bytes_of(results)
    alone = dataclasses.replace(again, from_there=True)
    assert bytes_of(alone.rounds()) == bytes_of(results)[first:]


def test_trained_anew_from_the_start_without_a_client_it_is_the_run_that_never_had_it(tmp_path):
    logs, results = conduct(tmp_path)
    never = dataclasses.replace(federation(min_clients=1), known_samples={"sft": {1: 0}, "va": {1: 0}})
    never = dataclasses.replace(never, run_id=results[0].record.run_id)
    _, expected = conduct(tmp_path / "never", never)
    again = replay(logs, federation(), retrain_from=0, trainers=toy_transport(), trained=never, without=frozenset({1}))
    assert bytes_of(again.rounds()) == bytes_of(expected)


def test_the_servers_own_training_is_carried_and_not_repeated(tmp_path):
    learner = ServerLearner(ToyLearner(), ClientShard(0, shard(3).sft, shard(3).va), {"sft": TRAIN, "va": TRAIN})
    fed = dataclasses.replace(federation(), learn=learner, validate=toy_loss)
    logs, results = conduct(tmp_path, fed)
    silent = dataclasses.replace(learner, learner=CarriedLearning(logs, fed.aggregation))
    again = list(replay(logs, dataclasses.replace(fed, learn=silent)).rounds())
    assert bytes_of(again) == bytes_of(results)
    hot = dataclasses.replace(fed, learn=silent, rule=ContributionRule(temperature=9.0))
    (first, *_), kept = replay(logs, hot).rounds(), kept_round(logs, 0)
    change = results[0].state.adapter.tensors["w"] - aggregated_again(kept, fed.aggregation).adapter.tensors["w"]
    weights = ContributionRule(temperature=9.0).weights(kept.record.contributions)
    mean = sum(
        weight * update.adapter.load().tensors["w"] for weight, update in zip(weights, kept.updates(), strict=True)
    )
    assert torch.allclose(first.state.adapter.tensors["w"], mean + change, atol=1e-5)


def test_noised_updates_are_replayed_as_they_were_released(tmp_path):
    """What is made of a release is free: no client trains, and no ledger is charged."""
    fed = federation(rule=ContributionRule(mode="uniform"))
    spec = PrivacySpec(where="client", clip=0.5, noise=4.0, epsilon=50.0, delta=1e-5)
    private = dataclasses.replace(fed, privacy=ClientNoise(spec, fed.plan))
    learner = PrivateLearner(ToyLearner(), lambda client: tmp_path / "state" / f"client_{client}")
    logs, results = conduct(tmp_path, private, learner=learner)
    assert bytes_of(replay(logs, private).rounds()) == bytes_of(results)
    others = list(replay(logs, dataclasses.replace(private, aggregation=aggregation("median"))).rounds())
    assert [one.record.privacy for one in others] == [one.record.privacy for one in results]


def test_rounds_that_are_gone_are_named_and_the_rest_is_replayed(tmp_path):
    logs, results = conduct(tmp_path)
    for path in logs.kept_round(1).root.iterdir():
        path.unlink()
    logs.kept_round(1).root.rmdir()
    assert replayable(logs, ROUNDS) == range(2, ROUNDS)
    assert bytes_of(replay(logs, federation()).rounds()) == bytes_of(results)[2:]
    for number in (2, 3):
        logs.kept_round(number).root.rename(tmp_path / f"gone-{number}")
    with pytest.raises(FederationError, match="kept are rounds 1"):
        list(replay(logs, federation()).rounds())


def test_the_adapter_that_a_round_ended_with_is_found_wherever_the_run_has_it(tmp_path):
    logs, results = conduct(tmp_path)
    for result in results:
        assert ended_with(logs, result.record).sha256 == result.state.adapter.sha256
    assert ended_with(logs, results[0].record.model_copy(update={"adapter_sha256": "0" * 64})) is None


def test_kept_rounds_answer_nothing_but_their_tasks(tmp_path):
    logs, results = conduct(tmp_path, learner=ToyLearner(broken=frozenset({2})))
    with KeptTransport(logs) as kept:
        answers = list(kept.ask(results[1].inputs.task, [0, 2]))
        assert answers[0].client_id == 0
        assert "not finite" in answers[1].reason
