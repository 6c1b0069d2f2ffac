"""A name means one thing: no two classes of the package share one."""

from collections import defaultdict
from pathlib import Path

from tests.source_facts import facts

PACKAGE = Path(__file__).resolve().parent.parent / "fccl"
SHARED: dict[str, str] = {}  # name: the reason why two classes have it


def classes():
    """Every class at the top level of a module: its name, and the modules that have it."""
    found = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in facts(path).classes:
            found[name].append(path.relative_to(PACKAGE.parent).as_posix())
    return found


def test_no_two_classes_of_the_package_share_a_name():
    found = classes()
    assert len(found) > 100
    twice = {name: where for name, where in found.items() if len(where) > 1}
    assert {name: where for name, where in twice.items() if name not in SHARED} == {}
    assert set(SHARED) <= set(twice)  # an exception goes with its reason
