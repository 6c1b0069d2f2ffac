from __future__ import annotations

import ast
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

WITHOUT = """
import contextlib, importlib, io, pkgutil, sys
import fccl
from fccl.apps.main import main
from fccl.extras import EXTRAS
for modules in EXTRAS.values():
    sys.modules |= dict.fromkeys(modules)  # None there: the import says that there is no such module
optional = ("fccl.pages", "fccl.testing", "fccl.view.charts", "fccl.apps.dashboard_script")
optional += ("fccl.evaluation.harness_model", "fccl.transports.flower", "fccl.flower", "fccl.apps.flower_server")
for module in pkgutil.walk_packages(fccl.__path__, "fccl.", onerror=lambda name: None):
    if not module.name.startswith(optional) and not module.name.endswith(("_tracker", "__main__")):
        importlib.import_module(module.name)
PRIVATE = ["run", "--dp-where", "client"]
trackers = (["run", "--track", kind] for kind in ("tensorboard", "mlflow", "wandb"))
others = (["evaluate", "--tasks", "hellaswag"], ["flower", "run"], ["run", "--base-precision", "bnb-nf4"])
for command in (["dashboard"], ["report"], ["compare"], *trackers, PRIVATE, *others):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert main(command) == 2
    print(said.getvalue(), end="")
"""
SAID = """\
error: the dashboard needs altair and streamlit, which are not installed
  hint: pip install "fccl[dashboard]"
error: the report needs altair, which is not installed
  hint: pip install "fccl[dashboard]"
error: a comparison's page needs altair, which is not installed
  hint: pip install "fccl[dashboard]"
error: TRACK=tensorboard needs tensorboard, which is not installed
  hint: pip install "fccl[tensorboard]"
error: TRACK=mlflow needs mlflow-skinny and sqlalchemy and alembic, which are not installed
  hint: pip install "fccl[mlflow]"
error: TRACK=wandb needs wandb, which is not installed
  hint: pip install "fccl[wandb]"
error: DP_WHERE=client needs dp-accounting, which is not installed
  hint: pip install "fccl[privacy]"
error: --tasks needs lm_eval, which is not installed
  hint: pip install "fccl[lm-eval]"
error: fccl flower needs flwr, which is not installed
  hint: pip install "fccl[flower]"
error: BASE_PRECISION=bnb-nf4 needs bitsandbytes, which is not installed
  hint: pip install "fccl[bitsandbytes]"
"""
COMMANDS_OF_EXTRAS = [
    *(["dashboard"], ["report"], ["compare"]),
    *(["run", "--track", kind] for kind in ("tensorboard", "mlflow", "wandb")),
    ["evaluate", "--tasks", "hellaswag"],
]


def test_the_extras_are_those_of_the_project_file():
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {extra: {Requirement(text).name for text in texts} for extra, texts in asked.items()} == {
        extra: set(packages.values()) for extra, packages in EXTRAS.items()
    }


LAZY = ("fccl.pages", "fccl.testing", "fccl.view.charts", "fccl.apps.dashboard_script", "fccl.evaluation.harness_model")


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


@pytest.mark.parametrize(("command", "said"), zip(COMMANDS_OF_EXTRAS, SAID.split("error: ")[1:], strict=True))
def test_one_line_names_the_extra_that_a_command_needs(command, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for module in {module for extra, modules in EXTRAS.items() if extra != "testing" for module in modules}:
        monkeypatch.setitem(sys.modules, module, None)
    assert main(command) == 2
    assert capsys.readouterr() == ("", f"error: {said}")


@pytest.mark.slow
def test_without_any_extra_all_else_is_there_and_one_line_names_the_extra_that_a_command_needs(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", WITHOUT]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (SAID, "", 0)
    assert list(tmp_path.iterdir()) == []


def test_of_an_extra_the_modules_that_are_named_are_looked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "streamlit", None)
    assert missing_packages("dashboard") == ["streamlit"]
    require_extra("dashboard", "the report", ("altair",))
    with pytest.raises(SettingsError, match="the page needs streamlit, which is not installed"):
        require_extra("dashboard", "the page")
