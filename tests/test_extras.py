from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fccl.apps.main import main
from fccl.errors import SettingsError
from fccl.extras import EXTRAS, missing_packages, require_extra

ROOT = Path(__file__).resolve().parent.parent

# Parts that an extra brings: nothing else imports them at once.
LAZY = (
    *("fccl.pages", "fccl.testing", "fccl.view.charts", "fccl.apps.dashboard_script", "fccl.evaluation.harness_model"),
    *("fccl.transports.flower", "fccl.flower", "fccl.apps.flower_server"),
)
# What needs an extra, what it says where that is missing, and the extra.
NEEDS = [
    (["dashboard"], "the dashboard needs altair and streamlit, which are", "dashboard"),
    (["report"], "the report needs altair, which is", "dashboard"),
    (["compare"], "a comparison's page needs altair, which is", "dashboard"),
    (["run", "--track", "tensorboard"], "TRACK=tensorboard needs tensorboard, which is", "tensorboard"),
    (["run", "--track", "mlflow"], "TRACK=mlflow needs mlflow-skinny and sqlalchemy and alembic, which are", "mlflow"),
    (["run", "--track", "wandb"], "TRACK=wandb needs wandb, which is", "wandb"),
    (["run", "--dp-where", "client"], "DP_WHERE=client needs dp-accounting, which is", "privacy"),
    (["evaluate", "--tasks", "hellaswag"], "--tasks needs lm_eval, which is", "lm-eval"),
    (["flower", "run"], "fccl flower needs flwr, which is", "flower"),
    (["run", "--base-precision", "bnb-nf4"], "BASE_PRECISION=bnb-nf4 needs bitsandbytes, which is", "bitsandbytes"),
]
WITHOUT = """
import contextlib, importlib, io, json, pkgutil, sys
import fccl
from fccl.apps.main import main
from fccl.extras import EXTRAS
for modules in EXTRAS.values():
    sys.modules |= dict.fromkeys(modules)  # None there: the import says that there is no such module
lazy, commands = json.loads(sys.argv[1])
for module in pkgutil.walk_packages(fccl.__path__, "fccl.", onerror=lambda name: None):
    if not module.name.startswith(tuple(lazy)) and not module.name.endswith(("_tracker", "__main__")):
        importlib.import_module(module.name)
for command in commands:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert main(command) == 2
    print(said.getvalue(), end="")
"""


def said(needs, extra):
    return f'error: {needs} not installed\n  hint: pip install "fccl[{extra}]"\n'


def test_the_extras_are_those_of_the_project_file():
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {extra: {Requirement(text).name for text in texts} for extra, texts in asked.items()} == {
        extra: set(packages.values()) for extra, packages in EXTRAS.items()
    }


def imported_at_once(body):
    """The libraries that a module imports as soon as it is imported: not in a function, nor for types alone."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.ClassDef | ast.With | ast.Try) or (
            isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test)
        ):
            yield from imported_at_once(node.body)


def test_no_module_that_a_command_needs_imports_an_extra_at_once():
    extras = {module for modules in EXTRAS.values() for module in modules}
    for path in (ROOT / "fccl").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if not name.startswith(LAZY) and not name.endswith("_tracker"):
            assert not extras & set(imported_at_once(ast.parse(path.read_text()).body)), name


@pytest.mark.parametrize(("command", "needs", "extra"), NEEDS)
def test_one_line_names_the_extra_that_a_command_needs(command, needs, extra, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for module in {module for name, modules in EXTRAS.items() if name != "testing" for module in modules}:
        monkeypatch.setitem(sys.modules, module, None)
    assert main(command) == 2
    assert capsys.readouterr() == ("", said(needs, extra))


@pytest.mark.slow
def test_without_any_extra_all_else_is_there_and_one_line_names_the_extra_that_a_command_needs(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WITHOUT, json.dumps([LAZY, [command for command, _, _ in NEEDS]])]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    expected = "".join(said(needs, extra) for _, needs, extra in NEEDS)
    assert (done.stdout, done.stderr, done.returncode) == (expected, "", 0)
    assert list(tmp_path.iterdir()) == []


def test_of_an_extra_the_modules_that_are_named_are_looked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "streamlit", None)
    assert missing_packages("dashboard") == ["streamlit"]
    require_extra("dashboard", "the report", ("altair",))
    with pytest.raises(SettingsError, match="the page needs streamlit, which is not installed"):
        require_extra("dashboard", "the page")
