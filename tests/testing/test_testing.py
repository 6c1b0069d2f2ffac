"""`fccl.testing` is for third parties too: it says at once which library it lacks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fccl.testing
from fccl import Weighing
from fccl.testing.toy import START, ToyLearner, federation, shard
from fccl.transports.in_process import InProcessTransport

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("library", ["pytest", "hypothesis"])
def test_without_a_test_library_one_line_says_what_to_install(library):
    hidden = f"""
import sys
sys.modules[{library!r}] = None
try:
    import fccl.testing
except ModuleNotFoundError as error:
    print(error)
"""
    process = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, check=True)
    assert process.stdout == f'fccl.testing needs {library}: pip install "fccl[testing]"\n'


def test_the_toy_federation_has_as_many_rounds_as_it_is_told():
    results = list(federation(clients=4, rounds=3, per_round=2).run(START, InProcessTransport(ToyLearner(), shard)))
    assert [result.record.phase for result in results] == ["sft"] * 3 + ["va"] * 3
    assert all(len(result.record.selected) == 2 for result in results)


@pytest.mark.parametrize("name", fccl.testing.__all__)
def test_every_suite_is_had_by_its_name_and_its_docstring_says_how(name):
    suite = getattr(fccl.testing, name)
    assert suite.__name__ == name
    assert f"`{name}`" in fccl.testing.__doc__
    assert [each for each in vars(suite) if each.startswith("test_")]


def test_a_name_that_is_no_suite_is_said_as_python_says_it():
    with pytest.raises(AttributeError, match=re.escape("module 'fccl.testing' has no attribute 'RuleContract'")):
        fccl.testing.RuleContract  # noqa: B018


class Equal:
    def weigh(self, task, updates):
        return Weighing((1 / len(updates),) * len(updates), (1.0,) * len(updates))


class FirstTakesAll:
    def weigh(self, task, updates):
        return Weighing((1.0, *(0.0,) * (len(updates) - 1)), (1.0,) * len(updates))


class OfEqual(fccl.testing.WeigherContract):
    def rule(self, loss):
        return Equal()


class OfFirstTakesAll(fccl.testing.WeigherContract):
    def rule(self, loss):
        return FirstTakesAll()


def test_an_author_s_rule_passes_the_suite_and_one_that_breaks_the_contract_does_not():
    """The test that the second rule breaks, called as pytest would."""
    OfEqual().test_reordering_the_updates_reorders_the_weights()
    # Half of the examples leave the first update where it is, and a quick run has few.
    with pytest.raises(AssertionError):
        [OfFirstTakesAll().test_reordering_the_updates_reorders_the_weights() for _ in range(5)]


QUICK = """
from hypothesis import Phase, settings

settings.register_profile("quick", max_examples=20, phases=[phase for phase in Phase if phase is not Phase.explain])
settings.load_profile("quick")
"""
AUTHORS = """
from fccl import Weighing
from fccl.testing import WeigherContract


class Equal:
    def weigh(self, task, updates):
        return Weighing((1 / len(updates),) * len(updates), (1.0,) * len(updates))


class FirstTakesAll:
    def weigh(self, task, updates):
        return Weighing((1.0, *(0.0,) * (len(updates) - 1)), (1.0,) * len(updates))


class TestEqual(WeigherContract):
    def rule(self, loss):
        return Equal()


class TestFirstTakesAll(WeigherContract):
    def rule(self, loss):
        return FirstTakesAll()
"""


@pytest.mark.slow
def test_pytest_finds_the_whole_suite_in_an_author_s_own_file(tmp_path):
    (tmp_path / "conftest.py").write_text(QUICK)
    (tmp_path / "test_rules.py").write_text(AUTHORS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_rules.py"]
    process = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    failed = set(re.findall(r"^FAILED test_rules.py::(\w+::\w+)", process.stdout, re.MULTILINE))
    assert "TestFirstTakesAll::test_reordering_the_updates_reorders_the_weights" in failed, process.stdout
    assert not [name for name in failed if name.startswith("TestEqual::")]
    assert re.search(r"\d+ passed", process.stdout)
