"""The app that is given to a SuperLink, where FCCL is not installed: what is missing, and the way out."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from fccl.transports.flower.bundle import REQUEST, write_bundle


@pytest.mark.parametrize(("part", "runs"), [("client", "flower-supernode"), ("server", "flower-superlink")])
def test_where_fccl_is_not_installed_the_app_says_so_and_how(tmp_path, part, runs):
    write_bundle(tmp_path / "app", tmp_path / "request.json")
    bare = [sys.executable, "-I", "-S", str(tmp_path / "app" / "fccl_app" / f"{part}.py")]  # no package but Python's
    said = subprocess.run(bare, capture_output=True, text=True, check=False).stderr
    assert "ModuleNotFoundError: No module named 'fccl': install FCCL in the Python that runs " + runs in said
    assert "pip install '.[flower]'" in said


def test_the_bundle_names_its_apps_and_the_request(tmp_path):
    write_bundle(tmp_path / "app", tmp_path / "request.json")
    told = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert told["components"] == {"serverapp": "fccl_app.server:app", "clientapp": "fccl_app.client:app"}
    assert told["config"] == {REQUEST: str(tmp_path / "request.json")}
    assert tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text())["project"]["dependencies"] == []
