"""Settings that the chosen rules do not read, for all settings and all rules: against the rules that are built."""

import itertools
from typing import get_args

import pytest
import torch

from fccl.aggregation import rules as aggregation
from fccl.config import Settings, load_settings
from fccl.config.rule_settings import AGGREGATIONS, SOURCES
from fccl.contribution import rules as contribution
from fccl.contribution.fltrust import FLTrust
from fccl.errors import SettingsError
from fccl.library.ignored import ignored, ignored_line, read_by, readers, refuse_ignored
from fccl.library.narrow import aggregation_rule, require_client_ranks, weigher
from fccl.model.preference_losses import Pairs, losses_of
from fccl.registry import load, parameters
from fccl.specs import PreferenceLoss, Schedule
from fccl.specs.codecs import CODECS

MODES = ("cognitive", "uniform", "fedavg")
LORA = ("factors", "svd", "exact", "nearly", "freeze_a", "fed_sb")
# A valid value of each that is not its default.
OTHER = {
    "contribution_source": "data_size",
    "contribution_temperature": 0.75,
    "contribution_normalize": "none",
    "verify_steps": 3,
    "verify_examples": 2,
    "verify_temperature": 0.75,
    "verify_prior": "uniform",
    "tempered_ratio": 2.0,
    "fltrust_lr": 0.75,
    "fedlaw_lr": 0.75,
    "lorahub_steps": 3,
    "lorahub_penalty": 0.75,
    "fedawa_lr": 0.75,
    "fedexp_epsilon": 0.75,
    "prox_mu": 0.5,
    "server_lr": 0.5,
    "server_momentum": 0.5,
    "server_beta2": 0.5,
    "server_tau": 0.5,
    "max_bad_clients": 2,
    "krum_keep": 2,
    "clip_norm": 2.0,
    "client_lora_r": "4",
}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


class Split:
    """As many examples as anybody draws."""

    @staticmethod
    def split(phase):
        return range(100)


def made_of(settings):
    """All that a run makes of the settings that rules read: how it weighs, aggregates and trains."""
    weighs = aggregation.uses_weights(settings.aggregation)
    rule = weigher(settings, Split) if weighs else None
    loss = getattr(rule, "loss", None)
    told = {name: value for name, value in vars(rule).items() if name != "loss"} if rule else {}
    try:
        require_client_ranks(settings)
        ranks = settings.client_ranks if settings.lower_ranks else ()
    except SettingsError:
        ranks = ()
    examples = loss.examples("sft") if loss and not isinstance(rule, FLTrust) else None  # which learns from all
    return (type(rule), told, examples, aggregation_rule(settings), settings.train_spec("sft"), ranks)


def goes_together(name, lora):
    try:
        aggregation_rule(load_settings({"aggregation": name, "lora_aggregation": lora}))
    except SettingsError:
        return False
    return True


CHOICES = [
    *itertools.product(["cognitive"], SOURCES, ["fedavg"], ["factors"]),
    *itertools.product(MODES, ["verified", "data_size", "fedawa"], ["fedavg", "median"], ["factors"]),
    *(pair for pair in itertools.product(["cognitive"], ["verified"], AGGREGATIONS, LORA) if goes_together(*pair[2:])),
]


@pytest.mark.parametrize(("mode", "source", "name", "lora"), dict.fromkeys(CHOICES))
def test_a_setting_is_ignored_exactly_where_changing_it_changes_nothing(mode, source, name, lora):
    chosen = {
        "contribution_mode": mode,
        "contribution_source": source,
        "aggregation": name,
        "lora_aggregation": lora,
    }
    settings = load_settings(chosen)
    plain, without_effect = made_of(settings), ignored(settings)
    for setting, value in OTHER.items():
        if setting == "contribution_source" and source == value:
            value = "loss_inverse"
        changed = made_of(settings.model_copy(update={setting: value}))
        assert (changed == plain) == (setting in without_effect), setting


def test_every_setting_that_some_rule_reads_is_tried_above():
    tried = {*OTHER, *OTHERWISE, "round_lr_floor", "learn_turns", "topk_share", "ditto_lambda"}
    assert {name for name in Settings.model_fields if readers(name)} == tried


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_the_floor_of_the_schedule_over_rounds_is_ignored_exactly_where_it_changes_no_round(schedule):
    settings = load_settings({"round_lr_schedule": schedule})
    found, other = (
        [plan.learning_rate_share(number) for number in range(plan.total_rounds)]
        for plan in (settings.round_plan(), settings.model_copy(update={"round_lr_floor": 0.5}).round_plan())
    )
    assert (found == other) == ("round_lr_floor" in ignored(settings))


@pytest.mark.parametrize("codec", CODECS)
def test_the_share_that_topk_sends_is_ignored_exactly_where_it_changes_no_codec(codec):
    settings = load_settings({"update_codec": codec})
    other = settings.model_copy(update={"topk_share": 0.7})
    assert (settings.train_spec("sft") == other.train_spec("sft")) == ("topk_share" in ignored(settings))


OTHERWISE = {"label_smoothing": 0.3, "simpo_gamma": 2.0}


@pytest.mark.parametrize("setting", OTHERWISE)
@pytest.mark.parametrize("loss", get_args(PreferenceLoss))
def test_a_setting_of_the_preference_loss_is_ignored_exactly_where_it_changes_no_loss(loss, setting):
    settings = load_settings({"preference_loss": loss})
    pairs = Pairs(torch.tensor([[-4.0, -9.0]]), torch.tensor([[-5.0, -7.0]]), torch.tensor([[3, 4]]))
    found, other = (
        float(losses_of(pairs, one.train_spec("va").preference))
        for one in (settings, settings.model_copy(update={setting: OTHERWISE[setting]}))
    )
    assert (found == other) == (setting in ignored(settings))


def test_the_names_of_the_settings_are_those_of_the_registries():
    assert set(SOURCES) == set(contribution.RULES)
    assert set(AGGREGATIONS) == set(aggregation.RULES)


@pytest.mark.parametrize("rule", [*contribution.RULES.values(), *aggregation.RULES.values()], ids=lambda one: one.path)
def test_every_argument_of_a_class_is_a_setting_or_fixed(rule):
    remembers = hasattr(load(rule.path), "remembering")
    taken = {one.name for one in parameters(load(rule.path))} - {"mode"} - ({"memory"} if remembers else set())
    assert taken == set(rule.reads.values()) | set(rule.fixed) | ({"loss"} if rule.takes_loss else set())


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_the_registry_says_of_each_rule_whether_it_takes_the_weights(name):
    assert aggregation.uses_weights(name) == aggregation.aggregation(name).uses_weights


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (
            {"krum_keep": "3"},
            "--krum-keep has no effect under AGGREGATION=fedavg",
            "leave it out; it is read under AGGREGATION=multi_krum",
        ),
        (
            {"contribution_temperature": "2"},
            "--contribution-temperature has no effect under CONTRIBUTION_SOURCE=verified",
            "leave it out; it is read under CONTRIBUTION_SOURCE=loss_inverse, data_size, data_loss_combined, "
            "validation_loss",
        ),
        (
            {"contribution_mode": "uniform", "contribution_source": "verified"},
            "--contribution-source has no effect under CONTRIBUTION_MODE=uniform",
            "leave it out; it is read under CONTRIBUTION_MODE=cognitive",
        ),
        (
            {"aggregation": "median", "verify_steps": "3"},
            "--verify-steps has no effect under AGGREGATION=median, which treats all updates alike",
            "leave it out; it is read under CONTRIBUTION_SOURCE=verified, tempered, fedlaw, fedlaw_gamma",
        ),
        (
            {"aggregation": "median", "contribution_mode": "cognitive"},
            "--contribution-mode has no effect under AGGREGATION=median, which treats all updates alike",
            "leave it out",
        ),
        (
            {"client_lora_r": "8"},
            "--client-lora-r has no effect under LORA_AGGREGATION=factors",
            "leave it out; it is read under LORA_AGGREGATION=svd, exact",
        ),
        (
            {"label_smoothing": "0.2"},
            "--label-smoothing has no effect under PREFERENCE_LOSS=sigmoid",
            "leave it out; it is read under PREFERENCE_LOSS=exo_pair, robust",
        ),
        (
            {"noise_kind": "flipped"},
            "--noise-kind has no effect without NOISY_CLIENTS",
            "leave it out; it is read under NOISY_CLIENTS that is not empty",
        ),
    ],
)
def test_an_argument_without_effect_is_refused_in_one_line(arguments, message, hint):
    with pytest.raises(SettingsError) as caught:
        refuse_ignored(load_settings(arguments), arguments)
    assert (str(caught.value), caught.value.hint) == (message, hint)


def test_what_is_read_is_not_refused():
    given = {"aggregation": "multi_krum", "krum_keep": "3", "max_bad_clients": "1"}
    refuse_ignored(load_settings(given), given)
    given = {"preference_loss": "simpo", "simpo_gamma": "1"}
    refuse_ignored(load_settings(given), given)
    given = {"aggregation": "median", "contribution_mode": "uniform"}
    refuse_ignored(load_settings(given), given)


def test_what_comes_from_elsewhere_is_said_in_one_line_and_no_default_or_preset_is(empty_folder, monkeypatch):
    monkeypatch.setenv("KRUM_KEEP", "3")
    monkeypatch.setenv("VERIFY_STEPS", "4")
    monkeypatch.setenv("CLIP_NORM", "")
    (empty_folder / ".env").write_text("PROX_MU=0.5\nSERVER_LR=\nNUM_CLIENTS=4\n")
    said = ignored_line(load_settings(), {})
    assert said.startswith("Settings without effect under the chosen rules: ")
    assert "PROX_MU (from .env)" in said
    assert "KRUM_KEEP (from the environment)" in said
    assert not any(name in said for name in ("VERIFY_STEPS", "CLIP_NORM", "SERVER_LR", "NUM_CLIENTS", "\n"))


def test_nothing_is_said_where_nothing_is_set():
    assert ignored_line(load_settings({"preset": "gpt2"}), {}) == ""


def test_a_setting_that_no_choice_hides_has_no_readers():
    assert read_by("seed") == ""
    assert read_by("prox_mu") == "AGGREGATION=fedprox"


@pytest.mark.parametrize("form", ["plain", "chat"])
def test_which_turns_are_learnt_is_ignored_exactly_where_it_changes_no_text(form):
    settings = load_settings({"prompt_format": form})
    changed = settings.model_copy(update={"learn_turns": "all"})
    assert (changed.model_spec() == settings.model_spec()) == ("learn_turns" in ignored(settings))
    assert "learn_turns" not in ignored(load_settings()), "auto may become chat"
