import time
from dataclasses import replace
from threading import Event, Thread

import numpy as np
import pytest
import torch

from fccl.adapters.adapter import Adapter
from fccl.adapters.stored import AdapterReader
from fccl.compare import scoring as scores
from fccl.compare import trial as trials
from fccl.compare.flat import PATIENCE
from fccl.compare.methods import METHODS
from fccl.compare.round_summaries import LEFT_OUT
from fccl.compare.scenarios import SCENARIOS
from fccl.compare.store import keep
from fccl.compare.trial import Only, run_trial, start_adapter, union
from fccl.compare.values import TrialResult
from fccl.config import load_settings
from fccl.contribution.reported import ContributionRule
from fccl.data.examples import PreferencePair, SftExample, read_examples
from fccl.data.shards import ClientShard, load_shard
from fccl.errors import FederationError, TrainingError
from fccl.federation.rounds import Federation
from fccl.federation.state import FederationState
from fccl.library.narrow import aggregation_rule
from fccl.messages import FitTask
from fccl.model.encoding import encode_pairs, encode_sft
from fccl.model.loading import Models
from fccl.model.scoring import score_pairs, score_sft
from fccl.paths import DataPaths
from fccl.storage.locks import one_at_a_time
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.training.learner import GenericLearner
from fccl.transports.in_process import InProcessTransport


def run(shop, scenario, method, seed=42):
    one = shop.planner.trial(SCENARIOS[scenario], METHODS[method], seed)
    return one, run_trial(shop.resources, one)


def timeless(result):
    return result.model_copy(update={"seconds": 0.0, "training_seconds": 0.0, "weighing_seconds": 0.0})


def test_scaffold_sends_a_variate_with_every_adapter_down_and_up(workshop):
    shop = workshop()
    plain, corrected = (run(shop, "shuffled", name)[1] for name in ("fedavg", "scaffold"))
    assert [each.bytes for each in corrected.rounds] == [2 * each.bytes for each in plain.rounds]


def test_a_trial_is_a_federation_judged_on_the_test_split(workshop, tiny_model):
    shop = workshop()
    one, result = run(shop, "shuffled", "verified")
    assert [len(each.clients) for each in result.rounds] == [4, 4]
    assert all(sum(each.weights) == pytest.approx(1) for each in result.rounds)
    assert result.weighing_seconds > 0
    assert not result.trouble
    size = AdapterReader(tiny_model.form).length
    assert [each.bytes for each in result.rounds] == [2 * 4 * size] * 2
    assert all(each.tokens > 0 for each in result.rounds)
    examples = read_examples(DataPaths(one.data).server_split("test", "sft"), SftExample)
    assert len(result.losses) == len(result.units) == len(examples)
    rows = encode_sft(tiny_model.tokenizer, examples, 128)
    assert tiny_model.adapter().sha256 == result.adapter_sha256  # scoring leaves it loaded
    assert np.allclose(score_sft(tiny_model, rows, 32).nll, result.losses)
    assert TrialResult.model_validate_json(result.model_dump_json()) == result


def test_the_same_trial_twice_is_the_same_and_the_kept_updates_change_nothing(workshop, tmp_path):
    first, second = workshop(tmp_path / "one"), workshop(tmp_path / "two")
    _, before = run(first, "sign-flip", "fedavg")
    _, warm = run(first, "sign-flip", "fedavg")  # round one comes from the disk
    _, cold = run(second, "sign-flip", "fedavg")
    assert len(list(first.paths.updates.glob("*.safetensors"))) == 4
    assert timeless(before) == timeless(warm) == timeless(cold)


def test_methods_train_the_same_first_round(workshop, monkeypatch):
    shop = workshop()
    seen: dict[str, list[tuple[int, str, str]]] = {}

    class Spy(trials.CachedLearner):
        def fit(self, task, shard, on_status):
            update = super().fit(task, shard, on_status)
            if task.round == 0:
                seen.setdefault(task.run_id, []).append(
                    (shard.client_id, task.adapter.sha256, update.adapter.load().sha256)
                )
            return update

    monkeypatch.setattr(trials, "CachedLearner", Spy)
    for method in ("fedavg", "verified", "loss-inverse"):
        run(shop, "shuffled", method)
    assert len(seen) == 3
    assert len({tuple(each) for each in seen.values()}) == 1
    assert len(list(shop.paths.updates.glob("*.safetensors"))) == 4


def test_a_run_until_flat_ends_when_nothing_is_gained_and_is_the_run_of_so_many_rounds(workshop):
    """At a rate that teaches nothing: after the first round and three that bring nothing more."""
    shop = workshop(sft_lr=1e-9)
    flat = SCENARIOS["clean-iid"].unhurried
    measured = run_trial(shop.resources, shop.planner.measure(flat, 42))
    keep(shop.paths, measured)
    assert len(measured.rounds) == 1 + PATIENCE
    again = run_trial(shop.resources, shop.planner.trial(flat, METHODS["fedavg"], 42))
    assert again.adapter_sha256 == measured.adapter_sha256


def test_weights_use_what_the_server_has_and_validation_stays_whole(workshop):
    shop = workshop()
    one = shop.planner.trial(SCENARIOS["server-one-topic"], METHODS["verified"], 42)
    work = trials.TrialRun(shop.resources, one.spec, DataPaths(one.data), shop.resources.model.initial_adapter(42))
    assert len({example.topic for example in work.learn.sft}) == len({pair.topic for pair in work.learn.va}) == 1
    assert len({example.topic for example in work.validator.sft}) == 2


def test_the_oracle_hears_the_honest_clients_alone(workshop):
    shop = workshop()
    bad = shop.planner.bad_clients(SCENARIOS["sign-flip"], 42)
    _, result = run(shop, "sign-flip", "oracle")
    assert all(set(each.clients) == set(range(4)) - set(bad) for each in result.rounds)


@pytest.mark.parametrize("method", ["median", "trimmed-mean", "multi-krum", "geometric-median", "norm-clipping"])
def test_robust_rules_do_what_their_names_say(workshop, tiny_model, monkeypatch, method):
    """Against the rule worked out by numpy from what the clients sent.

    Five clients, one of them sends ten times its update.
    """
    sent = []

    class Spy(trials.HostileLearner):
        def fit(self, task, shard, on_status):
            update = super().fit(task, shard, on_status)
            sent.append(flat(update.adapter.load()))
            return update

    monkeypatch.setattr(trials, "HostileLearner", Spy)
    shop = workshop(fed_rounds=1, num_clients=5)
    _, result = run(shop, "scaling", method)
    final, weights, updates = flat(tiny_model.adapter()), result.rounds[0].weights, np.stack(sent)
    (bad,) = shop.planner.bad_clients(SCENARIOS["scaling"], 42)
    start = flat(tiny_model.initial_adapter(42))
    if method == "median":
        assert weights is None
        assert np.allclose(final, np.median(updates, axis=0), atol=1e-7)
    elif method == "trimmed-mean":
        assert weights is None
        assert np.allclose(final, np.sort(updates, axis=0)[1:-1].mean(axis=0), atol=1e-7)
    else:
        assert np.allclose(final, start + np.array(weights) @ (updates - start), atol=1e-6)
    if method == "multi-krum":
        assert list(weights) == [0.0 if client == bad else 0.25 for client in range(5)]
    if method == "norm-clipping":
        assert np.linalg.norm(weights[bad] * (updates[bad] - start)) < np.linalg.norm(updates[bad] - start) / 5


@pytest.mark.parametrize("method", ["fedprox", "scaffold", "fedavgm", "fedadagrad", "fedyogi", "fedadam"])
def test_the_peers_are_what_a_run_with_their_settings_is(workshop, tiny_model, method):
    """Against the federation as `fccl run` builds it, without kept updates and without anybody hostile."""
    settings = {"contribution_mode": "fedavg", "aggregation": method, "prox_mu": 0.5}
    shop = workshop(prox_mu=0.5)
    one, result = run(shop, "clean-iid", method)
    plain = load_settings(shop.settings.model_dump(exclude_unset=True) | settings)
    shards = [load_shard(DataPaths(one.data), client) for client in range(4)]
    runs = Federation(
        run_id="by hand",
        plan=one.spec.plan,
        model=plain.model_spec(),
        train={"sft": plain.train_spec("sft"), "va": plain.train_spec("va")},
        rule=ContributionRule(mode="fedavg"),
        aggregation=aggregation_rule(plain),
        validate=lambda *asked: None,
    )
    transport = InProcessTransport(GenericLearner(Models.holding(tiny_model)), shards.__getitem__)
    rounds = runs.run(FederationState(0, tiny_model.initial_adapter(42)), transport)
    final = [next(rounds).state.adapter for _ in range(plain.fed_rounds)][-1]
    assert result.adapter_sha256 == final.sha256
    assert result.adapter_sha256 != run(shop, "clean-iid", "fedavg")[1].adapter_sha256


def test_verified_weights_go_with_control_variates(workshop):
    """The first round has no variates yet, and its weights are verified's; the second's updates differ."""
    shop = workshop()
    with_variates, without = (run(shop, "shuffled", method)[1] for method in ("verified-scaffold", "verified"))
    assert with_variates.rounds[0].weights == without.rounds[0].weights
    assert with_variates.rounds[0].loss == without.rounds[0].loss
    assert with_variates.adapter_sha256 != without.adapter_sha256


def flat(adapter):
    return np.concatenate([tensor.double().numpy().ravel() for tensor in adapter.tensors.values()])


def test_a_sign_flip_hurts_fedavg(workshop):
    shop = workshop()
    losses = [
        sum(result.losses) / sum(result.units)
        for result in (run(shop, name, "fedavg")[1] for name in ("sign-flip", "shuffled"))
    ]
    assert losses[0] > losses[1]


def test_the_base_is_the_model_without_any_round(workshop, tiny_model):
    _, result = run(workshop(), "shuffled", "base")
    assert result.rounds == ()
    assert result.adapter_sha256 == tiny_model.initial_adapter(42).sha256
    assert result.training_seconds == 0


def test_alone_is_the_mean_of_the_honest_clients(workshop):
    shop = workshop()
    bad = shop.planner.bad_clients(SCENARIOS["shuffled"], 42)
    _, result = run(shop, "shuffled", "alone")
    assert set(result.by_client) == set(range(4)) - set(bad)
    assert sum(result.losses) / sum(result.units) == pytest.approx(np.mean(list(result.by_client.values())))


def test_centralised_is_one_client_with_everything(workshop):
    shop = workshop()
    one, result = run(shop, "shuffled", "centralised")
    shards = [load_shard(DataPaths(one.data), client) for client in range(4)]
    assert [each.clients for each in result.rounds] == [(0,), (0,)]
    everything = union(shards)
    assert sorted(map(repr, everything.sft)) == sorted(repr(example) for mine in shards for example in mine.sft)
    assert union(shards[::-1]) == everything
    assert len(list(shop.paths.updates.glob("*.safetensors"))) == 1


def test_va_is_judged_by_the_dpo_loss_against_its_start(workshop, tiny_model):
    shop = workshop()
    one, base = run(shop, "flipped", "base")
    assert np.allclose(base.losses, np.log(2), atol=1e-6)
    _, result = run(shop, "flipped", "fedavg")
    assert [len(each.clients) for each in result.rounds] == [4, 4]
    start = start_adapter(shop.resources, one)
    pairs = encode_pairs(
        tiny_model.tokenizer, read_examples(DataPaths(one.data).server_split("test", "va"), PreferencePair), 128
    )
    now = score_pairs(tiny_model, pairs, 32)
    tiny_model.load(start)
    before = score_pairs(tiny_model, pairs, 32)
    margins = torch.from_numpy((now.chosen - before.chosen) - (now.rejected - before.rejected))
    assert np.allclose(-torch.nn.functional.logsigmoid(shop.settings.dpo_beta * margins).numpy(), result.losses)
    assert sum(result.right) / sum(result.decided) == pytest.approx(np.mean(now.margins > 0))


def test_the_start_of_va_is_trained_once(workshop):
    shop = workshop()
    one, _ = run(shop, "flipped", "fedavg")
    path = shop.paths.start(one.start.spec.key)
    written = path.stat().st_mtime_ns
    run(shop, "flipped", "verified")
    assert path.stat().st_mtime_ns == written
    assert list(path.parent.iterdir()) == [path]


def test_a_start_that_another_process_trains_is_waited_for(workshop, monkeypatch):
    shop = workshop()
    one = shop.planner.trial(SCENARIOS["flipped"], METHODS["fedavg"], 42)
    path, theirs = shop.paths.start(one.start.spec.key), shop.resources.model.initial_adapter(1)
    monkeypatch.setattr(trials, "_train_start", lambda trial_run, path: pytest.fail("trained twice"))
    begun = Event()

    def elsewhere():
        with one_at_a_time(path):
            begun.set()
            time.sleep(0.3)
            theirs.save(path)

    other = Thread(target=elsewhere)
    other.start()
    assert begun.wait(10)
    assert start_adapter(shop.resources, one).sha256 == theirs.sha256
    other.join()


def test_a_start_that_has_diverged_is_not_kept(workshop, monkeypatch):
    shop = workshop()
    one = shop.planner.trial(SCENARIOS["flipped"], METHODS["fedavg"], 42)
    monkeypatch.setattr(GenericLearner, "fit", huge)
    with pytest.raises(FederationError, match="broke down"):
        start_adapter(shop.resources, one)
    assert not shop.paths.start("any").parent.exists()


def huge(self, task, shard, on_status):
    """An update that is finite, of a model that is not."""
    update = ToyLearner().fit(replace(task, adapter=START.adapter), shard, on_status)
    return replace(
        update, adapter=Adapter({name: torch.full_like(tensor, 1e30) for name, tensor in task.adapter.tensors.items()})
    )


def test_the_test_split_is_encoded_and_scored_under_the_reference_once(workshop, monkeypatch):
    shop, encoded, scored = workshop(), [], []
    monkeypatch.setattr(scores, "encode_pairs", lambda *asked: encoded.append(1) or encode_pairs(*asked))
    monkeypatch.setattr(
        scores, "score_pairs", lambda model, *asked: scored.append(model.adapter().sha256) or score_pairs(model, *asked)
    )
    one, result = run(shop, "flipped", "alone")
    assert len(encoded) == 1
    assert len(scored) == 1 + len(result.by_client)
    assert scored.count(start_adapter(shop.resources, one).sha256) == 1


def test_a_federation_that_breaks_down_is_a_result(workshop, monkeypatch):
    class Breaks(trials.CachedLearner):
        def fit(self, task, shard, on_status):
            if task.round > 0:
                raise TrainingError("the gradient is not finite")
            return super().fit(task, shard, on_status)

    monkeypatch.setattr(trials, "CachedLearner", Breaks)
    _, result = run(workshop(), "scaling", "fedavg")
    assert any("the gradient is not finite" in what for what in result.trouble)
    assert len(result.rounds) == 1
    assert result.losses  # of the last adapter that there is


def test_who_does_not_count_in_a_round_is_named(workshop, monkeypatch):
    class OneBreaks(trials.CachedLearner):
        def fit(self, task, shard, on_status):
            if (task.round, shard.client_id) == (1, 2):
                raise TrainingError("the gradient is not finite")
            return super().fit(task, shard, on_status)

    monkeypatch.setattr(trials, "CachedLearner", OneBreaks)
    _, result = run(workshop(), "scaling", "fedavg")
    assert [what.partition(": ")[0] for what in result.trouble] == ["round 2 without client 2"]
    _, oracle = run(workshop(), "scaling", "oracle")
    assert not any(LEFT_OUT in what for what in (*result.trouble, *oracle.trouble)), (
        "whom the method leaves out is no trouble"
    )
    assert len(oracle.rounds[0].clients) == 3, "it does leave one out"


@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(path.read_bytes()[:-40]), lambda path: path.write_bytes(b"")]
)
def test_a_damaged_start_is_trained_again(workshop, damage):
    shop = workshop()
    one, result = run(shop, "clean-va", "fedavg")
    path = shop.resources.paths.start(one.start.spec.key)
    whole = path.read_bytes()
    damage(path)
    assert timeless(run(shop, "clean-va", "fedavg")[1]) == timeless(result)
    assert path.read_bytes() == whole


def test_those_left_out_fail_at_once():
    transport = Only(InProcessTransport(ToyLearner(), shard), frozenset({0, 2}))
    result = next(federation().run(START, transport))
    assert result.record.clients == (0, 2)
    assert [one.reason for one in result.record.excluded] == [LEFT_OUT, LEFT_OUT]


def test_server_learning_moves_every_round_and_the_server_may_be_all_or_one_of_the_clients(workshop, tiny_model):
    shop = workshop()
    _, plain = run(shop, "shuffled", "fedavg")
    one, after = run(shop, "shuffled", "fedavg-server")
    assert [each.weights for each in after.rounds] == [each.weights for each in plain.rounds]
    assert after.rounds[0].loss != plain.rounds[0].loss
    _, more = run(shop, "shuffled", "server-client")
    learn = read_examples(DataPaths(one.data).server_split("learn", "sft"), SftExample)
    held = [len(load_shard(DataPaths(one.data), client).sft) for client in range(4)] + [len(learn)]
    assert more.rounds[0].weights == pytest.approx([count / sum(held) for count in held])
    alone, result = run(shop, "shuffled", "server-only")
    terms, learner = (alone.spec.model, alone.spec.train, 42), GenericLearner(Models.holding(tiny_model))
    adapter, own = tiny_model.initial_adapter(42), ClientShard(0, tuple(learn), ())
    for number in range(2):
        task = FitTask(alone.spec.key, number, "sft", adapter, None, *terms)
        adapter = learner.fit(task, own, lambda status: None).adapter
    assert result.adapter_sha256 == adapter.sha256
    assert not any(each.trouble for each in (after, more, result))
