"""The cache: bounded, whole entries or none, and never another key's bytes."""

import errno
import hashlib
import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.storage import files
from fccl.storage.cache import Cache
from tests.examples import few

MOST = 1_000


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def cache(folder):
    return Cache(folder, MOST)


def entry(folder):
    (path,) = folder.iterdir()
    return path


def age(folder, seconds):
    for path in kept_files(folder):
        found = path.stat()
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns - int(seconds * 1e9)))


def test_a_later_process_finds_what_was_put(cache, folder):
    assert cache.get("a") is None
    cache.put("a", b"one")
    cache.put("b", b"")
    assert [Cache(folder, MOST).get(key) for key in "abc"] == [b"one", b"", None]
    cache.put("a", b"two")
    assert Cache(folder, MOST).get("a") == b"two"


def test_it_is_for_its_owner_alone(cache, folder):
    cache.put("a", b"one")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(entry(folder).stat().st_mode) == 0o600


@settings(max_examples=few(100))
@given(content=st.binary(max_size=40), damage=st.data())
def test_a_damaged_or_cut_entry_is_none_and_is_written_anew(tmp_path_factory, content, damage):
    folder = tmp_path_factory.mktemp("state") / "cache"
    cache = Cache(folder, MOST)
    cache.put("a", content)
    whole = entry(folder).read_bytes()
    position = damage.draw(st.integers(0, len(whole) - 1))
    flipped = bytes([whole[position] ^ damage.draw(st.integers(1, 255))])
    entry(folder).write_bytes(whole[:position] + damage.draw(st.sampled_from([b"", flipped + whole[position + 1 :]])))
    assert cache.get("a") is None
    cache.put("a", content)
    assert cache.get("a") == content


def test_another_keys_entry_under_this_name_is_none(cache, folder):
    cache.put("a", b"one")
    a = entry(folder)
    cache.put("b", b"two")
    (b,) = set(folder.iterdir()) - {a}
    b.replace(a)
    assert cache.get("a") is None


@pytest.mark.parametrize("put", [lambda path: path.mkdir(), lambda path: path.symlink_to("/etc/passwd"), os.mkfifo])
def test_what_is_no_file_is_no_entry(cache, folder, put):
    cache.put("a", b"one")
    path = entry(folder)
    path.unlink()
    put(path)
    assert cache.get("a") is None
    cache.put("a", b"two")


@settings(max_examples=few(100))
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 400)), max_size=15))
def test_the_bound_holds_and_what_was_read_longest_ago_goes_first(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("state") / "cache"
    cache, order = Cache(folder, MOST), []
    for reads, key, length in steps:
        age(folder, 10)
        if (cache.get(key_of(key)) is not None) if reads else cache.put(key_of(key), bytes(length)) is None:
            order = [known for known in order if known != key] + [key]
        kept = [known for known in order if path_of(folder, known).exists()]
        assert sum(path.stat().st_size for path in kept_files(folder)) <= MOST
        assert kept == order[len(order) - len(kept) :], "the others were older"
        assert kept[-1:] == order[-1:]
        order = kept
    for count in range(1, len(order) + 1):
        Cache(folder, sum(path_of(folder, key).stat().st_size for key in order[count:]))
        assert set(kept_files(folder)) == {path_of(folder, key) for key in order[count:]}


def key_of(number):
    return f"key {number}"


def path_of(folder, number):
    """Where the bytes of this key are, as `sha256sum` tells."""
    return folder / f"{hashlib.sha256(key_of(number).encode()).hexdigest()}.cache"


def kept_files(folder):
    return list(folder.iterdir()) if folder.exists() else []


def test_an_entry_above_the_bound_is_not_kept_and_drives_nothing_out(cache):
    cache.put("a", b"one")
    cache.put("b", bytes(MOST))
    assert (cache.get("a"), cache.get("b")) == (b"one", None)


def test_a_bound_of_nothing_keeps_nothing(cache, folder):
    cache.put("a", b"one")
    none = Cache(folder, 0)
    none.put("b", b"")
    assert list(folder.iterdir()) == []
    assert none.get("a") is None


def test_a_full_disk_is_one_line_and_no_entry(folder, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "")

    said = []
    cache = Cache(folder, MOST, said.append)
    with monkeypatch.context() as patch:
        patch.setattr(files, "flush", full)
        for key in "ab":
            cache.put(key, b"one")
    assert len(said) == 1
    assert said[0].startswith(f"nothing is kept in the cache: cannot write {folder}/")
    assert said[0].endswith(": the disk is full")
    assert cache.get("a") is None
    assert list(folder.iterdir()) == []
    cache.put("a", b"one")
    assert cache.get("a") == b"one"


@pytest.mark.parametrize(
    "put", [lambda path: path.write_text("mine"), lambda path: path.symlink_to(path.parent / "other")]
)
def test_something_in_its_place_is_left_alone_and_said(folder, put):
    other = folder.parent / "other"
    other.mkdir()
    (other / "x.cache").write_bytes(bytes(10 * MOST))
    put(folder)
    said = []
    cache = Cache(folder, MOST, said.append)
    cache.put("a", b"one")
    assert cache.get("a") is None
    assert len(said) == 1
    assert os.listdir(other) == ["x.cache"]


def test_what_a_killed_process_was_writing_is_swept(cache, folder):
    cache.put("a", b"one")
    left = folder / ".x.cache.0123456789abcdef.tmp"
    left.write_bytes(b"half")
    Cache(folder, MOST)
    assert not left.exists()


def test_its_owners_folder_is_made_anew_as_private_as_it_was(tmp_path):
    folder = tmp_path / "state" / "client_0" / "cache"
    Cache(folder, MOST).put("a", b"one")
    assert [stat.S_IMODE(each.stat().st_mode) for each in (folder, folder.parent)] == [0o700, 0o700]


def test_it_can_be_deleted_at_any_time(cache, folder):
    cache.put("a", b"one")
    entry(folder).unlink()
    folder.rmdir()
    assert cache.get("a") is None
    cache.put("a", b"one")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert cache.get("a") == b"one"
