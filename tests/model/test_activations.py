"""Kept activations: what is asked for is what was made, the bounds hold, and nothing that is kept makes room."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.model.activations import Activations
from fccl.storage.cache import Cache
from tests.examples import few

WIDTH = 3
LIKE = torch.zeros(1, WIDTH)
ROW = WIDTH * 4  # bytes


class Maker:
    """Makes a key's tensor and counts how often."""

    def __init__(self, dtype=torch.float32):
        self.made, self.dtype = [], dtype

    def tensor(self, key):
        draw = torch.Generator().manual_seed(int(key))
        return torch.randn(1 + int(key) % 4, WIDTH, generator=draw).to(self.dtype)

    def ask(self, kept, key):
        return kept.of(key, LIKE.to(self.dtype), lambda: self.made.append(key) or self.tensor(key))


@pytest.fixture
def disk(tmp_path):
    return Cache(tmp_path / "cache", 100_000)


keys = st.lists(st.integers(0, 9).map(str), max_size=30)


@settings(max_examples=few(100), deadline=None)
@given(asked=keys, memory=st.integers(0, 30 * ROW), on_disk=st.sampled_from([None, 0, 300, 100_000]))
def test_every_answer_is_the_keys_own_tensor_whatever_is_kept(tmp_path_factory, asked, memory, on_disk):
    folder = tmp_path_factory.mktemp("state") / "cache"
    maker, cache = Maker(), None if on_disk is None else Cache(folder, on_disk)
    kept = Activations(cache, most_bytes=memory)
    for key in asked:
        assert torch.equal(maker.ask(kept, key), maker.tensor(key))


@settings(max_examples=few(100), deadline=None)
@given(asked=keys, rows=st.integers(0, 12))
def test_the_first_that_fit_in_memory_stay_there_and_the_others_are_made_each_time(asked, rows):
    maker, kept, room, stay, expected = Maker(), Activations(most_bytes=rows * ROW), rows, set(), []
    for key in asked:
        maker.ask(kept, key)
        if key not in stay:
            expected.append(key)
            if (size := 1 + int(key) % 4) <= room:
                stay, room = stay | {key}, room - size
    assert maker.made == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_memory_does_not_hold_is_read_from_the_disk_by_a_later_process_too(disk, dtype):
    maker = Maker(dtype)
    for kept in (Activations(disk, most_bytes=0), Activations(Cache(disk.folder, disk.most_bytes))):
        for key in "123123":
            assert torch.equal(maker.ask(kept, key), maker.tensor(key))
    assert maker.made == ["1", "2", "3"]


def test_what_memory_holds_is_not_written(disk):
    Maker().ask(Activations(disk), "1")
    assert not disk.folder.exists()


def test_the_disk_keeps_a_share_for_others_and_no_entry_makes_room_for_another(tmp_path):
    entry, made = torch.zeros(1000, WIDTH), []
    disk = Cache(tmp_path / "cache", 5 * entry.nbytes)
    disk.put("another's", bytes(entry.nbytes))
    kept = Activations(disk, most_bytes=0)
    for key in "abcdef" * 2:
        kept.of(key, LIKE, lambda key=key: made.append(key) or entry)
    assert "".join(made) == "abcdef" + "def", "three quarters of five"
    assert disk.get("another's") is not None


def test_a_damaged_entry_is_made_anew(disk):
    maker = Maker()
    maker.ask(Activations(disk, most_bytes=0), "1")
    (path,) = disk.folder.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(maker.ask(Activations(disk, most_bytes=0), "1"), maker.tensor("1"))
    assert maker.made == ["1", "1"]
