"""Somebody's own classes: found, checked, built; what is wrong with one is one line."""

import itertools
import sys

import pytest

from fccl.errors import SettingsError
from fccl.registry import built, is_own, load, parameters, registered_own, source_sha256
from fccl.storage.files import sha256_of
from tests.own_rules import write

COUNT = itertools.count()
KNOWN = {"verify_steps": 5, "contribution_temperature": 1.0, "krum_keep": 2}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that nobody has imported yet, in the folder where we are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return write(tmp_path, f"rules_of_a_test_{next(COUNT)}")


@pytest.mark.parametrize("name", ["a:B", "package.module:Class", "_a._b:_C2"])
def test_a_module_and_a_class_are_a_name(name):
    assert is_own(name)


@pytest.mark.parametrize(
    "name",
    ["verified", "", ":", "a:", ":B", "a.b", "a:B:C", "a/b:C", "a b:C", "..a:B", "a:B\n", "á:B", "a." * 99 + "b:C"],
)
def test_anything_else_is_none(name):
    assert not is_own(name)


def test_a_class_is_built_of_the_settings_that_its_arguments_are_named_like(module):
    own = registered_own(f"{module}:Asks", KNOWN, ("weigh",))
    assert own.settings == {"verify_steps", "contribution_temperature"}
    assert own.takes_loss
    rule = built(own, KNOWN, loss="the loss")
    assert (rule.loss, rule.steps, rule.temperature, rule.more) == ("the loss", 5, 1.0, 7)


def test_the_fields_of_a_rule_that_is_a_value_are_its_arguments(module):
    own = registered_own(f"{module}:First", KNOWN, ("initial", "require", "aggregate"))
    assert own.settings == {"krum_keep"}
    assert not own.takes_loss
    assert built(own, KNOWN).krum_keep == 2
    assert "name" in [one.name for one in parameters(load(f"{module}:First"))]


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("nowhere_at_all:Rule", "nowhere_at_all:Rule: there is no module nowhere_at_all", "must be installed"),
        ("{}:Missing", "{}:Missing: {} has no class Missing", "its classes: Last, Asks, First"),
        ("{}:NOT_A_CLASS", "{}:NOT_A_CLASS: {} has no class NOT_A_CLASS", "its classes: Last"),
        ("{}:NoRule", "{}:NoRule has no method weigh", "docs/own-rules.md"),
        ("{}:Needs", "{}:Needs: its constructor needs something, which is no setting", "named like settings"),
        ("{}:Raises", "{}:Raises: its constructor raised RuntimeError: no way", "mend the class"),
    ],
)
def test_what_is_wrong_with_a_class_is_one_line_with_a_hint(module, name, message, hint):
    with pytest.raises(SettingsError) as caught:
        built(registered_own(name.format(module), KNOWN, ("weigh",)), KNOWN)
    assert str(caught.value) == message.format(module, module)
    assert hint.replace("named like settings", "like settings") in caught.value.hint
    assert "\n" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def broken(:", "SyntaxError"),
        ("import nowhere_at_all", "there is no module nowhere_at_all"),
    ],
)
def test_a_module_that_raises_is_one_line(module, tmp_path, text, said):
    broken = write(tmp_path, f"broken_{next(COUNT)}", text)
    with pytest.raises(SettingsError) as caught:
        load(f"{broken}:Rule")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_here_does_not_stand_for_an_installed_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    write(tmp_path, "colorsys", "raise RuntimeError('the one in the folder')")
    with pytest.raises(SettingsError, match="colorsys has no class Rule"):
        load("colorsys:Rule")


def test_the_hash_is_that_of_the_file_of_the_class(module, tmp_path):
    assert source_sha256(f"{module}:Last") == sha256_of(tmp_path / f"{module}.py")


def test_a_class_without_a_file_has_no_hash():
    with pytest.raises(SettingsError, match="is written in no file"):
        source_sha256("builtins:int")
