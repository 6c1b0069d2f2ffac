"""From settings to differential privacy: what is refused, before anything starts, and what a client insists on."""

import pytest

import fccl
from fccl.config import Settings, load_settings
from fccl.errors import SettingsError
from fccl.federation.example_noise import ExampleNoise
from fccl.federation.privacy import ClientNoise
from fccl.federation.server_noise import ServerNoise
from fccl.library.combinations import COMBINATIONS, MEANS
from fccl.library.ignored import refuse_ignored
from fccl.library.narrow import settled
from fccl.library.privacy import Guard, require_learner, require_sound, run_privacy
from fccl.messages import DeclareTask
from fccl.paths import LogPaths
from fccl.testing.toy import ToyLearner, shard
from fccl.training.clients_learner import ClientsLearner

SOUND = {"client": {"dp_noise": 8.0}, "server": {"dp_noise": 8.0, "contribution_mode": "uniform"}}
# A value of each setting that is refused in some place, as the row of the table names it.
EXAMPLES = {
    ("dp_unit", "example"): {"dp_unit": "example"},
    ("aggregation", "scaffold"): {"aggregation": "scaffold"},
    ("aggregation", "median, trimmed_mean"): {"aggregation": "geometric_median"},
    ("lora_aggregation", "svd"): {"lora_aggregation": "svd"},
    ("lora_aggregation", "fed_sb"): {"lora_aggregation": "fed_sb"},
    ("update_codec", "fp16"): {"update_codec": "int8"},
    ("contribution_mode", "fedavg"): {"contribution_mode": "fedavg"},
    ("contribution_source", "loss_inverse"): {"contribution_mode": "cognitive", "contribution_source": "data_size"},
    ("contribution_source", "verified"): {"contribution_mode": "cognitive", "contribution_source": "verified"},
    ("late_updates", "next"): {"late_updates": "next"},
    ("open", "true"): {"open": True},
    ("client_test_share", "above 0"): {"client_test_share": 0.2},
    ("personalize", "finetune, ditto"): {"personalize": "ditto"},
    ("original_clients", "any"): {"original_clients": "1"},
    ("client_sampling", "poisson"): {"client_sampling": "poisson"},
    ("dp_clip_quantile", "above 0"): {"dp_clip_quantile": 0.5},
    ("secure_aggregation", "true"): {"secure_aggregation": True},
}


def of(where, **changes):
    return load_settings({"dp_where": where} | SOUND[where] | changes)


def named(each):
    return next(
        (
            example
            for (setting, what), example in EXAMPLES.items()
            if each.setting == setting and each.what.startswith(what)
        ),
        None,
    )


@pytest.mark.parametrize("each", COMBINATIONS, ids=lambda each: f"{each.setting}-{each.what[:12]}")
@pytest.mark.parametrize("where", ["client", "server"])
def test_a_row_of_the_table_is_refused_where_it_says_so_with_its_reason(where, each):
    example = named(each)
    if where not in each.refused:
        require_sound(of(where, **(example or {})) if example and not named_refuses(where, example) else of(where))
        return
    assert example is not None, "a row that refuses has an example here"
    with pytest.raises(SettingsError) as caught:
        require_sound(of(where, **example))
    assert str(caught.value).endswith(each.why(where))
    assert f"does not go with DP_WHERE={where}" in str(caught.value)
    assert caught.value.hint


def named_refuses(where, example):
    settings = of(where, **example)
    return any(where in each.refused and each.chosen(settings) for each in COMBINATIONS)


@pytest.mark.parametrize("rule", MEANS)
def test_rules_that_one_noised_mean_is_enough_for_go_with_noise_at_the_server(rule):
    require_sound(of("server", aggregation=rule))


def test_every_aggregation_rule_is_in_one_row_and_an_own_class_is_looked_upon_as_looking_at_updates():
    for rule in Settings.model_fields["aggregation"].json_schema_extra["choices"]:
        rows = [each for each in COMBINATIONS if each.setting == "aggregation" and rule in each.what.split(", ")]
        assert len(rows) == 1, rule
    with pytest.raises(SettingsError, match="looks at single updates"):
        require_sound(of("server", aggregation="tests.own_rules:Mean"))


def test_without_differential_privacy_nothing_is_refused_and_nothing_is_made():
    for example in EXAMPLES.values():
        require_sound(load_settings(example))
    assert run_privacy(load_settings()) is None
    told = []
    usual = load_settings()
    assert settled(usual, told.append, {}) == usual
    assert told == []


@pytest.mark.slow
def test_a_budget_that_allows_no_round_is_refused_with_noise_that_allows_all():
    with pytest.raises(SettingsError, match=r"DP_EPSILON=8 allows no round: with DP_NOISE=1 one costs 10\.0") as caught:
        require_sound(of("client", dp_noise=1.0))
    enough = float(caught.value.hint.removeprefix("DP_NOISE=").partition(" ")[0])
    require_sound(of("client", dp_noise=enough))
    told = []
    settled(of("client", dp_noise=enough), told.append, {})
    assert "allows all 6 rounds" in told[0]


def test_a_budget_that_allows_some_rounds_is_said_at_the_start():
    told = []
    settled(of("client", dp_noise=2.0), told.append, {})
    assert "allows 2 of 6 rounds" in told[0]


@pytest.mark.parametrize(("name", "value"), [("keep_updates_mb", 5), ("max_update_ratio", 9.0)])
def test_what_noise_at_the_server_sets_to_0_is_refused_as_an_argument(name, value):
    with pytest.raises(SettingsError, match=f"{name.upper()}={value} does not go with DP_WHERE=server"):
        settled(of("server", **{name: value}), lambda line: None, {name: value})
    assert getattr(settled(of("server"), lambda line: None, {}), name) == 0


@pytest.mark.parametrize(
    "name", ["dp_unit", "dp_clip", "dp_noise", "dp_epsilon", "dp_delta", "client_sampling", "dp_clip_quantile"]
)
def test_a_setting_of_differential_privacy_alone_is_refused(name):
    with pytest.raises(SettingsError, match="has no effect without DP_WHERE") as caught:
        refuse_ignored(load_settings(), {name: "1"})
    assert caught.value.hint == "leave it out; it is read under DP_WHERE that is not none"


def test_noise_is_added_where_the_settings_say_with_the_secret_in_its_place(tmp_path):
    assert isinstance(run_privacy(of("client")), ClientNoise)
    at_server = run_privacy(of("server", log_dir=tmp_path / "logs"))
    assert isinstance(at_server, ServerNoise)
    assert at_server.folder == LogPaths(tmp_path / "logs").private
    assert list(tmp_path.iterdir()) == []


def test_an_orchestrator_has_no_noise_at_the_server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="DP_WHERE=server does not go with `fccl orchestrator`"):
        fccl.Orchestrator(
            dp_where="server", dp_noise=8.0, contribution_mode="uniform", keep_updates_mb=0, max_update_ratio=0
        )


def test_a_client_insists_on_what_it_is_started_with_and_on_nothing_else():
    assert Guard.of_client(load_settings()).own is None
    own = Guard.of_client(load_settings({"dp_where": "client", "dp_noise": 3.0, "dp_clip": 0.25, "min_shard": 5}))
    assert (own.own.noise, own.own.clip, own.min_shard) == (3.0, 0.25, 5)
    with pytest.raises(SettingsError, match="nothing that a client can see to"):
        Guard.of_client(of("server"))


@pytest.mark.parametrize(
    "each", [each for each in COMBINATIONS if "client" in each.refused], ids=lambda each: each.setting
)
def test_what_whole_updates_do_not_go_with_is_refused_by_example_too_with_a_reason_of_its_own(each):
    with pytest.raises(SettingsError) as caught:
        require_sound(of("client", dp_unit="example", **named(each)))
    assert str(caught.value).endswith(each.why("example"))


def test_by_example_clients_train_by_dp_sgd_and_the_start_says_so():
    told = []
    by_example = of("client", dp_unit="example", dp_noise=1.0)
    settled(by_example, told.append, {})
    assert "single examples: clients train by DP-SGD (clip 1, multiplier 1;" in told[0]
    noise = run_privacy(by_example, {"sft": {0: 20}, "va": {0: 5}})
    assert isinstance(noise, ExampleNoise)
    assert noise.known["sft"] == {0: 20}
    assert noise.train["sft"] == by_example.train_spec("sft")


def test_by_example_a_learner_of_ones_own_must_train_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_example = {"dp_where": "client", "dp_unit": "example"}
    with pytest.raises(SettingsError, match="ToyLearner has no fit_by_example, which DP_UNIT=example needs"):
        fccl.FederatedRun(learner=ToyLearner(), **by_example)
    require_learner(load_settings(by_example), ClientsLearner())
    require_learner(load_settings(by_example), None)
    require_learner(load_settings({"dp_where": "client"}), ToyLearner())


def test_a_client_that_insists_declares_its_numbers_only_where_these_are_public():
    request = DeclareTask("run", 0, "sft", ("mark",))
    answers = {
        unit: Guard.of_client(load_settings({"dp_where": "client", "dp_unit": unit}))
        .declarer()
        .answer(request, shard(4), lambda status: None)
        for unit in ("client", "example")
    }
    assert [(each.sft, each.va, each.overlap) for each in answers.values()] == [(1, 1, None), (5, 1, None)]
    usual = Guard.of_client(load_settings()).declarer()
    assert (usual.bare, usual.marks) == (False, True)
