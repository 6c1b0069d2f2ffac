"""A class of one's own is imported only where this very command names it."""

import itertools
import sys
from types import SimpleNamespace

import pytest

from fccl.apps.main import main
from fccl.config import Settings, load_settings
from fccl.contribution.own import OwnWeigher
from fccl.errors import SettingsError
from fccl.library.ignored import ignored, refuse_ignored
from fccl.library.narrow import aggregation_rule, recorded_settings, settled, weigher
from fccl.library.own_rules import own_rules
from fccl.records.run import RunInfo
from fccl.storage.files import sha256_of
from tests.own_rules import RULES, write

COUNT = itertools.count()


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


@pytest.fixture
def module(here):
    return write(here, f"own_rules_{next(COUNT)}")


def run_with(settings, rules=None):
    """A log folder whose run has these settings."""
    info = RunInfo(
        run_id="run",
        created=1.0,
        settings={name: str(value) for name, value in settings.model_dump().items()},
        data_sha256="",
        versions={},
        rules=own_rules(settings) if rules is None else rules,
    )
    return SimpleNamespace(info=lambda: info, recorded=lambda to: info, paths=SimpleNamespace(root="logs"))


@pytest.mark.parametrize("setting", ["contribution_source", "aggregation"])
def test_arguments_and_the_environment_may_name_a_class_a_dotenv_may_not(here, module, monkeypatch, setting):
    path = f"{module}:First"
    assert getattr(load_settings({setting: path}), setting) == path
    (here / ".env").write_text(f"{setting.upper()}={path}\n")
    with pytest.raises(SettingsError, match=rf"\.env: {setting.upper()}={path} names a class") as caught:
        load_settings()
    assert "--" + setting.replace("_", "-") in caught.value.hint
    monkeypatch.setenv(setting.upper(), path)
    assert getattr(load_settings(), setting) == path
    assert module not in sys.modules  # naming is not importing


def test_a_dotenv_with_one_of_our_rules_is_read(here):
    (here / ".env").write_text("AGGREGATION=median\n")
    assert load_settings().aggregation == "median"


def test_a_value_that_is_neither_a_rule_nor_a_class_is_refused():
    with pytest.raises(
        SettingsError, match=r"AGGREGATION=mean: allowed is one of fedavg, .*, or package\.module:Class"
    ):
        load_settings({"aggregation": "mean"})


def test_the_rules_are_built_of_what_they_read(module):
    settings = load_settings({"contribution_source": f"{module}:Asks", "verify_steps": 2})
    rule = weigher(settings, SimpleNamespace(split=lambda phase: range(9)))
    assert isinstance(rule, OwnWeigher)
    assert (rule.weigher.steps, rule.weigher.temperature, rule.weigher.more) == (2, 1.0, 7)
    assert rule.weigher.loss.examples("sft") == 9
    chosen = aggregation_rule(load_settings({"aggregation": f"{module}:First", "krum_keep": 4}))
    assert (chosen.name, chosen.rule.krum_keep, chosen.uses_weights) == (f"{module}:First", 4, False)


def test_an_argument_that_an_own_class_does_not_read_is_refused(module):
    path = f"{module}:Asks"
    settings = load_settings({"contribution_source": path})
    assert {"verify_prior", "verify_temperature", "contribution_normalize"} <= ignored(settings)
    assert not {"verify_steps", "verify_examples", "contribution_temperature"} & ignored(settings)
    with pytest.raises(SettingsError, match=f"--verify-prior has no effect under CONTRIBUTION_SOURCE={path}"):
        refuse_ignored(settings, {"contribution_source": path, "verify_prior": "uniform"})


def test_an_own_aggregation_without_weights_makes_none(module):
    settings = settled(load_settings({"aggregation": f"{module}:First"}), print, {})
    assert settings.contribution_mode == "uniform"


@pytest.mark.parametrize("lora", ["svd", "exact"])
def test_an_own_aggregation_does_not_go_with_the_mean_of_products(module, lora):
    with pytest.raises(SettingsError, match=f"LORA_AGGREGATION={lora} does not go with AGGREGATION={module}:First"):
        aggregation_rule(load_settings({"aggregation": f"{module}:First", "lora_aggregation": lora}))


@pytest.mark.parametrize(("setting", "name"), [("contribution_source", "Last"), ("aggregation", "First")])
def test_a_run_to_resume_names_its_class_and_does_not_import_it(here, setting, name, monkeypatch):
    module = write(here, f"own_rules_{next(COUNT)}")
    path = f"{module}:{name}"
    folder = run_with(load_settings({setting: path}), {path: sha256_of(here / f"{module}.py")})
    with pytest.raises(SettingsError) as caught:
        recorded_settings(folder, load_settings(), {})
    assert str(caught.value) == f"the run to resume needs the class {path} as its {setting.upper()}"
    assert caught.value.hint == f"name it again if you trust it: --{setting.replace('_', '-')} {path}"
    assert module not in sys.modules
    given = {setting: path}
    assert getattr(recorded_settings(folder, load_settings(given), given), setting) == path
    monkeypatch.setenv(setting.upper(), path)
    assert getattr(recorded_settings(folder, load_settings(), {}), setting) == path


def test_a_run_whose_class_has_changed_is_not_resumed(here, module):
    given = {"contribution_source": f"{module}:Last"}
    folder = run_with(load_settings(given))
    write(here, module, RULES + "\n# changed\n")
    with pytest.raises(SettingsError, match=f"the file of {module}:Last was changed since the run began") as caught:
        recorded_settings(folder, load_settings(given), given)
    assert "start a new run" in caught.value.hint


def test_a_record_with_a_class_of_before_the_hash_was_kept_is_not_believed(module):
    given = {"contribution_source": f"{module}:Last"}
    folder = run_with(load_settings(given), rules={})
    with pytest.raises(SettingsError, match="was changed since"):
        recorded_settings(folder, load_settings(given), given)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--contribution-source", "no_such_thing:Rule"], "no_such_thing:Rule: there is no module no_such_thing"),
        (["--aggregation", "no_such_thing:Rule"], "no_such_thing:Rule: there is no module no_such_thing"),
    ],
)
def test_a_command_with_a_class_that_is_not_there_ends_before_it_does_anything(here, capsys, arguments, line):
    assert main(["run", *arguments]) == 2
    assert capsys.readouterr().err.splitlines()[0] == f"error: {line}"
    assert list(here.iterdir()) == []
