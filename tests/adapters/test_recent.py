"""What was checked a moment ago is not read again, and nothing else is ever given in its place."""

import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fccl.adapters.adapter import Adapter
from fccl.adapters.recent import Checked, Recent


def checked(number):
    adapter = Adapter({"a": torch.full((4,), float(number))})
    return Checked(bytearray(adapter.to_bytes()), adapter)


LENGTH = len(checked(0).content)


def written(path, number):
    found = checked(number)
    path.write_bytes(found.content)
    return found


def test_what_was_noted_is_found_until_it_is_cleared(tmp_path):
    recent, path = Recent(), tmp_path / "a"
    recent.note(path, found := written(path, 1))
    assert recent.find(path) is found
    recent.clear()
    assert recent.find(path) is None


@pytest.mark.parametrize("change", ["written again", "replaced", "cut", "gone"])
def test_a_file_that_is_not_the_same_any_more_is_not_found(tmp_path, change):
    recent, path = Recent(), tmp_path / "a"
    recent.note(path, written(path, 1))
    if change == "written again":
        path.write_bytes(checked(2).content)
        os.utime(path, ns=(0, 0))  # the clock of some file systems is coarse
    elif change == "replaced":
        (tmp_path / "b").write_bytes(checked(1).content)
        os.replace(tmp_path / "b", path)
    elif change == "cut":
        os.truncate(path, LENGTH - 1)
    else:
        path.unlink()
    assert recent.find(path) is None


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(0, 4))
def test_it_holds_no_more_than_it_may_and_the_newest_one(tmp_path_factory, names, room):
    folder = tmp_path_factory.mktemp("files")
    recent, newest = Recent(most_bytes=room * LENGTH + LENGTH - 1), {}
    for number, name in enumerate(names):
        path = folder / str(name)
        recent.note(path, written(path, number))
        newest[path] = number
    held = {path: float(found.adapter.tensors["a"][0]) for path in newest if (found := recent.find(path))}
    assert held.items() <= newest.items(), "never an older content"
    assert path in held
    assert len(held) <= room + 1
    assert len(held) >= min(len(newest), room)
