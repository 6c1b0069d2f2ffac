import sys
from dataclasses import replace

import pytest

from fccl.apps.compare import design
from fccl.compare.flat import MOST_ROUNDS
from fccl.compare.grids import tuned_for
from fccl.compare.methods import METHODS, own_method
from fccl.compare.plan import Planner
from fccl.compare.scenarios import SCENARIOS
from fccl.compare.store import keep
from fccl.compare.values import RoundSummary, TrialResult
from fccl.config import load_settings
from fccl.paths import ComparePaths
from fccl.storage.files import sha256_of
from tests.own_rules import RULES, write


def trial(planner, scenario, method, seed=42):
    return planner.trial(SCENARIOS[scenario], METHODS[method], seed)


@pytest.fixture(scope="module")
def planner(tiny_settings, tiny_model, tmp_path_factory):
    return Planner(design(load_settings(tiny_settings), tiny_model, 1), ComparePaths(tmp_path_factory.mktemp("plan")))


def test_the_oracle_is_exactly_the_honest_clients(planner):
    for name in ("shuffled", "free-riders", "flipped"):
        bad = planner.bad_clients(SCENARIOS[name], 42)
        work = trial(planner, name, "oracle").spec
        assert len(bad) == 1
        assert [client.client_id for client in work.clients] == [client for client in range(4) if client not in bad]
        assert {client.attack for client in work.clients} == {"none"}
        assert work.settings == trial(planner, name, "fedavg").spec.settings


def test_methods_of_a_scenario_see_the_same_shards_and_the_same_start(planner):
    works = [trial(planner, "shuffled", name).spec for name in ("fedavg", "verified", "median", "loss-inverse")]
    assert len({work.clients for work in works}) == 1
    assert len({(work.test, work.validation, work.plan, work.train, work.start) for work in works}) == 1
    assert len({work.key for work in works}) == 4
    assert [bool(work.learn) for work in works] == [False, True, False, False]  # nobody else is run anew for another


def test_scenarios_that_a_method_cannot_tell_apart_share_the_result(planner):
    assert trial(planner, "loss-forgers", "verified").spec == trial(planner, "shuffled", "verified").spec
    assert trial(planner, "loss-forgers", "fedavg").spec == trial(planner, "shuffled", "fedavg").spec
    assert trial(planner, "loss-forgers", "loss-inverse").spec != trial(planner, "shuffled", "loss-inverse").spec
    assert (
        trial(planner, "sign-flip", "oracle").spec
        == trial(planner, "free-riders", "oracle").spec
        == trial(planner, "shuffled", "oracle").spec
    )
    assert trial(planner, "sign-flip", "centralised").spec == trial(planner, "clean-iid", "centralised").spec
    assert trial(planner, "shuffled", "centralised").spec != trial(planner, "clean-iid", "centralised").spec
    assert trial(planner, "shuffled", "base").spec == trial(planner, "sizes", "base").spec


def test_spoilt_clients_have_other_shards_and_the_honest_the_same(planner):
    bad = planner.bad_clients(SCENARIOS["shuffled"], 42)
    spoilt, clean = (trial(planner, name, "fedavg").spec.clients for name in ("shuffled", "sign-flip"))
    different = [one.client_id for one, other in zip(spoilt, clean, strict=True) if one.shard != other.shard]
    assert tuple(different) == bad
    assert [client.client_id for client in clean if client.attack == "sign_flip"] == list(bad)


def test_va_scenarios_start_from_one_adapter_of_clean_data(planner):
    start, *others = [
        trial(planner, name, method).start
        for name in ("flipped", "clean-va")
        for method in ("fedavg", "verified", "oracle", "base")
    ]
    assert all(other == start for other in others)
    assert start.spec.phase == "sft"
    assert {client.attack for client in start.spec.clients} == {"none"}
    assert len(start.spec.clients) == 4
    assert trial(planner, "flipped", "fedavg").spec.start == start.spec.key


def test_where_nobody_is_bad_there_is_no_oracle(planner):
    found = list(
        planner.trials(
            [SCENARIOS["clean-iid"], SCENARIOS["shuffled"]], [METHODS["fedavg"], METHODS["oracle"]], [42, 43]
        )
    )
    assert [(one.scenario, one.method, one.seed) for one in found] == [
        ("clean-iid", "fedavg", 42),
        ("shuffled", "fedavg", 42),
        ("shuffled", "oracle", 42),
        ("clean-iid", "fedavg", 43),
        ("shuffled", "fedavg", 43),
        ("shuffled", "oracle", 43),
    ]


@pytest.mark.parametrize(
    "changes", [{"sft_lr": 1e-3}, {"fed_rounds": 3}, {"lora_r": 2}, {"verify_steps": 3}, {"eval_batch_size": 8}]
)
def test_a_changed_setting_is_another_trial(planner, tiny_settings, tiny_model, changes):
    other = replace(planner, design=design(load_settings(tiny_settings | changes), tiny_model, 1))
    assert trial(other, "shuffled", "verified").spec.key != trial(planner, "shuffled", "verified").spec.key


def test_what_a_method_does_not_read_changes_nothing_for_it(planner, tiny_settings, tiny_model):
    other = replace(planner, design=design(load_settings(tiny_settings | {"verify_steps": 3}), tiny_model, 1))
    assert trial(other, "shuffled", "fedavg").spec == trial(planner, "shuffled", "fedavg").spec


def test_fedprox_alone_is_pulled_back(planner, tiny_settings):
    assert trial(planner, "shuffled", "fedprox").spec.train.prox_mu == load_settings(tiny_settings).prox_mu > 0
    assert {trial(planner, "shuffled", name).spec.train.prox_mu for name in METHODS if name != "fedprox"} == {0.0}


def test_other_seeds_are_other_data(planner):
    first, second = (trial(planner, "shuffled", "fedavg", seed) for seed in (42, 43))
    assert first.data != second.data
    assert first.spec.test != second.spec.test


def test_a_trial_of_an_own_class_is_another_when_its_file_changes(planner, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = write(tmp_path, "own_rules_of_a_plan") + ":Last"
    method = own_method(path, planner.design.settings)
    before = planner.trial(SCENARIOS["shuffled"], method, 42).spec
    assert before.rules == {path: sha256_of(tmp_path / "own_rules_of_a_plan.py")}
    write(tmp_path, "own_rules_of_a_plan", RULES + "# changed")
    assert planner.trial(SCENARIOS["shuffled"], method, 42).spec.key != before.key
    assert trial(planner, "shuffled", "fedavg").spec.rules == {}


def test_the_pooled_data_is_clean_whatever_the_clients_hold(planner):
    assert trial(planner, "shuffled", "pooled").spec == trial(planner, "clean-iid", "centralised").spec
    assert trial(planner, "shuffled", "pooled").spec != trial(planner, "shuffled", "centralised").spec
    assert trial(planner, "shuffled", "pooled").data == trial(planner, "sign-flip", "fedavg").data


def test_an_oracle_with_verified_weights_hears_the_same_clients_as_the_oracle(planner):
    oracle, verified = (trial(planner, "shuffled", name).spec for name in ("oracle", "oracle-verified"))
    assert verified.clients == oracle.clients
    assert verified.settings == trial(planner, "shuffled", "verified").spec.settings


def test_half_of_the_clients_are_there_in_a_round_and_a_client_alone_in_all(planner):
    assert trial(planner, "come-and-go", "fedavg").spec.plan.clients_per_round == 2
    assert trial(planner, "come-and-go", "alone").spec.plan.clients_per_round == 4
    assert trial(planner, "come-and-go", "pooled").spec.plan.clients_per_round == 1


def test_honest_clients_that_add_noise_are_heard_by_everybody(planner):
    work = trial(planner, "privacy-noise", "fedavg").spec
    assert [client.attack for client in work.clients].count("dp_noise") == 1
    assert [one.method for one in planner.trials([SCENARIOS["privacy-noise"]], [METHODS["oracle"]], [42])] == []


def test_the_specialists_topic_is_one_of_the_test_split(planner):
    assert trial(planner, "specialist", "fedavg").spec.specialist in {"a", "b"}
    assert trial(planner, "shuffled", "fedavg").spec.specialist == ""


def test_rounds_until_flat_are_measured_once_by_the_honest_clients_fedavg(planner):
    flat, sign = (SCENARIOS[name].unhurried for name in ("shuffled", "sign-flip"))
    measure = planner.measure(flat, 42)
    assert measure.spec == planner.measure(sign, 42).spec
    assert measure.spec.until_flat
    assert measure.spec.plan.fed_rounds == MOST_ROUNDS
    assert measure.spec.clients == trial(planner, "shuffled", "oracle").spec.clients
    assert planner.measure(SCENARIOS["clean-iid"].unhurried, 42).method == "fedavg"
    with pytest.raises(LookupError, match="was not measured"):
        planner.trial(flat, METHODS["fedavg"], 42)


def test_all_methods_have_as_many_rounds_as_were_measured(planner):
    flat = SCENARIOS["shuffled"].unhurried
    rounds = tuple(RoundSummary(clients=(0,), weights=None, loss=1.0) for _ in range(7))
    measure = planner.measure(flat, 42)
    keep(
        planner.paths,
        TrialResult(spec=measure.spec, seconds=1, training_seconds=1, weighing_seconds=0, rounds=rounds),
    )
    for name in ("fedavg", "verified", "pooled", "oracle"):
        assert planner.trial(flat, METHODS[name], 42).spec.plan.fed_rounds == 7
        assert trial(planner, "shuffled", name).spec.plan.fed_rounds == 2
    longest = planner.longest(flat, [METHODS["fedavg"]], [42])
    assert [one.spec.plan.fed_rounds for one in longest] == [MOST_ROUNDS]


def test_what_the_server_has_matters_to_who_uses_it_alone(planner):
    for name in ("server-two-topics", "server-8", "server-mislabelled", "server-elsewhere"):
        assert trial(planner, name, "fedavg").spec == trial(planner, "shuffled", "fedavg").spec
        assert trial(planner, name, "verified").spec.server == SCENARIOS[name].server
        assert trial(planner, name, "verified").spec.key != trial(planner, "shuffled", "verified").spec.key


def test_the_server_learns_alone_takes_part_or_learns_after_the_aggregation(planner):
    files = planner.manifest(SCENARIOS["shuffled"].data_spec(planner.design.data, 42)).files
    learn = files["server/learn_sft.jsonl"]
    alone, more, after, plain = (
        trial(planner, "shuffled", name).spec for name in ("server-only", "server-client", "fedavg-server", "fedavg")
    )
    assert [(client.client_id, client.shard) for client in alone.clients] == [(0, learn)]
    assert (alone.plan.num_clients, alone.plan.fed_rounds) == (1, plain.plan.fed_rounds)  # as many passes as rounds
    assert [client.shard for client in more.clients] == [*(client.shard for client in plain.clients), learn]
    assert more.plan.clients_per_round == len(more.clients) == 5
    assert (after.clients, after.plan, plain.learn_train) == (plain.clients, plain.plan, None)
    assert after.learn_train == plain.train.model_copy(update={"epochs": 1})
    assert {spec.learn for spec in (alone, more, after)} == {learn}


def test_a_tuned_method_has_the_value_of_the_phase(planner):
    method = tuned_for(METHODS["fedavg-server"], {"sft": 0.01, "va": 0.001})
    for name, rate in (("clean-iid", 0.01), ("clean-va", 0.001)):
        spec = planner.trial(SCENARIOS[name], method, 42).spec
        assert spec.settings["learn_lr"] == rate == spec.learn_train.learning_rate
        assert spec.key != trial(planner, name, "fedavg-server").spec.key
