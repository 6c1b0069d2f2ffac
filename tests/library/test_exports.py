"""`import fccl` costs nothing, and every name that it offers is there, typed and explained with an example."""

import ast
import doctest
import inspect
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fccl

ROOT = Path(__file__).resolve().parent.parent.parent
TREE = ast.parse((ROOT / "fccl" / "__init__.py").read_text())
PAGE = (ROOT / "docs" / "library.md").read_text()
HEAVY = ("torch", "pydantic", "numpy", "pandas", "rich", "transformers", "importlib.metadata", "fccl.library")


def imported_for_types():
    """The names that the block for type checkers imports, each with its module."""
    block = next(node for node in TREE.body if isinstance(node, ast.If))
    return {alias.name: node.module for node in block.body for alias in node.names}


@pytest.mark.parametrize("name", fccl.__all__)
def test_every_name_resolves_and_has_a_docstring_with_an_example(name):
    value = getattr(fccl, name)
    assert value.__module__.startswith("fccl.")
    assert doctest.DocTestParser().get_examples(inspect.getdoc(value) or ""), f"{name} has no example"


@pytest.mark.parametrize("name", fccl.__all__)
def test_every_public_method_of_an_exported_class_has_a_docstring(name):
    value = getattr(fccl, name)
    methods = [each for key, each in vars(value).items() if inspect.isfunction(each) and not key.startswith("_")]
    assert [each.__name__ for each in methods if not each.__doc__] == []


def test_type_checkers_are_told_the_same_names_from_the_same_modules():
    assert imported_for_types() == fccl.HOMES
    assert sorted(fccl.__all__) == sorted(fccl.HOMES)


def test_type_checkers_of_people_read_the_types_of_the_installed_package():
    """PEP 561: without the marker every name is `Any` to a program that imports the package."""
    assert (ROOT / "fccl" / "py.typed").is_file()
    globs = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["fccl"]
    assert "py.typed" in globs


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, fccl; dir(fccl); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert set(loaded.split()) & set(HEAVY) == set()


DIGEST = """
import hashlib, torch
torch.set_num_threads(1)
drawn = torch.randn(200, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
print(hashlib.sha256(b"".join(each.numpy().tobytes() for each in torch.linalg.svd(drawn))).hexdigest())
"""


def said_by(code, **variables):
    """The last line of a program that begins without a word on MKL in its environment, but these."""
    inherited = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    program = [sys.executable, "-c", code]
    done = subprocess.run(program, capture_output=True, text=True, check=True, cwd=ROOT, env=inherited | variables)
    return done.stdout.split()[-1]


def test_importing_the_package_gives_a_program_the_products_of_a_command_unless_its_environment_says_otherwise():
    tell = "import os, fccl; print(os.environ['MKL_CBWR'])"
    assert said_by(tell) == "AUTO"
    assert said_by(tell, MKL_CBWR="COMPATIBLE") == "COMPATIBLE"
    assert said_by(f"import torch, fccl{DIGEST}") == said_by(DIGEST, MKL_CBWR="AUTO")


def test_a_name_that_is_not_there_is_said_as_python_says_it():
    with pytest.raises(AttributeError, match="module 'fccl' has no attribute 'Runn'"):
        fccl.Runn  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Runn'"):
        exec("from fccl import Runn")


def test_dir_lists_the_names():
    assert set(fccl.__all__) < set(dir(fccl))


def test_the_page_names_every_name_and_no_other():
    assert set(re.findall(r"`fccl\.(\w+)", PAGE)) | {"__version__"} >= set(fccl.__all__)
    named = set(re.findall(r"\bfccl\.([A-Za-z]\w*)", PAGE)) - {"testing", "view", "messages", "aggregation"}
    assert named <= set(fccl.__all__)
