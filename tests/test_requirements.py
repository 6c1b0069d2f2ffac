from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from scripts import lock

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOOKS = [*PROJECT["dependencies"], *EXTRAS["dashboard"]]
OPTIONAL = [text for extra in EXTRAS.values() for text in extra]


def lines(name: str) -> list[str]:
    rows = (ROOT / name).read_text().splitlines()
    return [row for row in rows if row and not row.startswith(("#", "-r "))]


def pins(*names: str) -> dict[str, str]:
    rows = [row.split("==") for name in names for row in lines(name)]
    return {name.lower().replace("_", "-"): version for name, version in rows}


def key(requirement: Requirement) -> str:
    return requirement.name.lower().replace("_", "-")


@pytest.mark.parametrize("text", LOOKS)
def test_what_the_project_asks_for_is_pinned_within_its_range(text: str) -> None:
    wanted = Requirement(text)
    assert wanted.specifier.contains(pins("requirements.txt")[key(wanted)])


@pytest.mark.parametrize("text", OPTIONAL)
def test_each_extra_is_pinned_for_the_tests_within_its_range(text: str) -> None:
    wanted = Requirement(text)
    assert wanted.specifier.contains(pins("requirements.txt", "requirements-dev.txt")[key(wanted)])


@pytest.mark.parametrize("name", ["requirements.in", "requirements-dev.in"])
def test_a_range_stands_in_pyproject_alone(name: str) -> None:
    asked = [Requirement(row) for row in lines(name) if not row.startswith("-e .")]
    ranged = {key(wanted) for wanted in asked if {part.operator for part in wanted.specifier} - {"=="}}
    named = {key(Requirement(text)) for text in [*PROJECT["dependencies"], *OPTIONAL]}
    bare = {key(wanted) for wanted in asked if not wanted.specifier}
    assert not ranged
    assert not bare & named


def test_both_files_are_pinned_inside_what_the_neighbours_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = tmp_path / "limits.txt"

    def resolved(python: str, *arguments: str) -> dict[str, str]:
        if "flwr==1.41.*" in arguments:
            return {"attrs": "23.2.0", "flwr": "1.41.0", "rich": "14.3.4"}
        assert arguments[2:] == ("-c", str(limits))
        limited = dict(row.split("==") for row in limits.read_text().split())
        names = ["attrs", "rich"] if arguments[1] == "requirements-dev.in" else ["attrs"]
        return {name: limited[name] for name in names}

    monkeypatch.setattr(lock, "resolved", resolved)
    assert lock.locked("python", limits) == ({"attrs": "23.2.0"}, {"rich": "14.3.4"})


@pytest.mark.slow
def test_the_pins_are_inside_what_the_neighbours_ask_for() -> None:
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", "--quiet"]
    report = subprocess.check_output([*pip, "--report", "-", *lock.NEIGHBOURS], text=True)
    asked = [text for item in json.loads(report)["install"] for text in item["metadata"].get("requires_dist", [])]
    asked += lock.NEIGHBOURS
    ours = pins("requirements.txt", "requirements-dev.txt")
    shared = [wanted for wanted in map(Requirement, asked) if key(wanted) in ours and not wanted.marker]
    assert {"rich", "attrs", "starlette"} <= {key(wanted) for wanted in shared}
    assert [str(wanted) for wanted in shared if not wanted.specifier.contains(ours[key(wanted)])] == []
