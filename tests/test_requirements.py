from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
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


def test_both_files_are_of_one_environment_and_each_pin_stands_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resolved at once, then each file's share of it; what stood before is preferred, and limits hold."""
    limits, asked = tmp_path / "limits.txt", []

    def resolved(uv: str, inputs: Sequence[str], limits: Path, prefer: dict[str, str]) -> dict[str, str]:
        asked.append((tuple(inputs), limits.read_text().split(), prefer))
        both = {"attrs": "23.2.0", "rich": "14.3.4", "nvidia-nccl": "2", "setuptools": "80"}
        return both if inputs[-1] == "requirements-dev.in" else {"attrs": "23.2.0", "triton": "3"}

    monkeypatch.setattr(lock, "resolved", resolved)
    assert lock.locked("uv", limits, {"rich": "14.3.4"}) == ({"attrs": "23.2.0"}, {"rich": "14.3.4"})
    assert asked[0] == (lock.FILES, list(lock.NEIGHBOURS), {"rich": "14.3.4"})
    assert all({"attrs==23.2.0", "rich==14.3.4"} <= set(within) for _, within, _ in asked[1:])


def test_a_requirements_file_is_read_as_it_was_written() -> None:
    found = lock.pins_in("# a==1\n-r other.txt\n-e .\ntorch==2.13.0+cpu\nattrs==23.2.0\n")
    assert found == {"torch": "2.13.0", "attrs": "23.2.0"}
    assert lock.pins_in(lock.written(found)) == found
    for name in lock.PINNED:
        assert lock.written(lock.pins_in((ROOT / name).read_text())) in (ROOT / name).read_text()


def test_what_is_pinned_goes_together() -> None:
    """No pinned package asks for another pinned one outside its range, as far as they are installed here."""
    pinned = pins(*lock.PINNED)
    outside = [
        f"{name} asks for {wanted}"
        for name in pinned
        for wanted in map(Requirement, metadata.requires(name) or ())
        if wanted.marker is None and key(wanted) in pinned
        if not wanted.specifier.contains(pinned[key(wanted)], prereleases=True)
    ]
    assert outside == []


@pytest.mark.slow
def test_the_pins_resolve_as_they_stand(tmp_path: Path) -> None:
    """`make lock` changes nothing; needs the package index."""
    uv = str(Path(sys.executable).with_name("uv"))
    before = [(ROOT / name).read_text() for name in lock.PINNED]
    base, dev = lock.locked(uv, tmp_path / "limits.txt", lock.pins_in("".join(before)))
    assert lock.written(base) in before[0]
    assert lock.written(dev) in before[1]
