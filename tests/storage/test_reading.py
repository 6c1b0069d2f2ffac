"""Files that somebody else wrote: bounded, no link followed, no pipe waited for; their text fit for a terminal."""

import errno
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.errors import StorageError, UpdateRejected
from fccl.storage.reading import NamedTwice, NotJson, is_no_folder, json_value, read_bounded


def test_reading_is_bounded_and_follows_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(UpdateRejected, match="file has 5 bytes, at most 4 are possible"):
        read_bounded(path, 4)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(UpdateRejected, match="link is a symbolic link"):
        read_bounded(tmp_path / "link", 5)
    with pytest.raises(UpdateRejected, match="none is missing"):
        read_bounded(tmp_path / "none", 5)
    with pytest.raises(UpdateRejected, match="has too long a name"):
        read_bounded(tmp_path / ("x" * 300), 5)


def test_the_readers_own_trouble_is_nobodys_fault(tmp_path, monkeypatch):
    def broken(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "open", broken)
    with pytest.raises(StorageError, match="Input/output error"):
        read_bounded(tmp_path / "file", 5)


def test_a_length_that_was_named_is_compared_before_anything_is_read(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5, 5) == b"12345"
    for length in (0, 4, 6):
        with pytest.raises(UpdateRejected, match=f"file has 5 bytes, {length} were said to be there"):
            read_bounded(path, 10, length)


names = st.text(max_size=4)
values = st.recursive(
    st.none() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
)


def wrapped(text, path):
    """The value further in: in a list, or under a name."""
    for name in path:
        text = f"[{text}]" if name is None else f"{{{json.dumps(name)}: {text}}}"
    return text


@given(values)
def test_json_is_what_the_standard_library_reads(value):
    assert json_value(json.dumps(value)) == json_value(json.dumps(value, ensure_ascii=False).encode()) == value


@given(names, values, values, st.lists(st.none() | names, max_size=4))
def test_a_name_given_twice_is_refused_wherever_it_is(name, one, two, path):
    spelt = "".join(f"\\u{ord(character):04x}" for character in name) if name.isascii() else name
    for again in (json.dumps(name), f'"{spelt}"' if name.isascii() else json.dumps(name)):
        text = wrapped(f'{{{json.dumps(name)}: {json.dumps(one)}, "another": 0, {again}: {json.dumps(two)}}}', path)
        with pytest.raises(NamedTwice, match="twice") as error:
            json_value(text)
        assert str(error.value).isprintable()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 10**5,
        b"1" * 5000,
        b"{'a': 1}",
        "\ufeff1".encode(),
        "1".encode("utf-16"),
        b"1 2",
        b'{"a": 1,}',
    ],
)
def test_what_is_no_json_is_one_line(content):
    with pytest.raises(NotJson) as error:
        json_value(content)
    assert str(error.value).startswith("is n")
    assert "\n" not in str(error.value)


def test_a_folder_that_is_made_while_somebody_looks_is_not_in_the_way(tmp_path, monkeypatch):
    """Two looks, absent at the first and there at the second, once took a peer's new folder for something else."""
    folder, look = tmp_path / "bell", os.lstat

    def made_after_the_first_look(path, **arguments):
        try:
            return look(path, **arguments)
        finally:
            folder.mkdir(exist_ok=True)

    monkeypatch.setattr(os, "lstat", made_after_the_first_look)
    assert not is_no_folder(folder)
    assert not is_no_folder(folder)


def test_anything_but_a_folder_is_in_a_folders_way(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path)
    assert [is_no_folder(tmp_path / name) for name in ("file", "link", ".", "none")] == [True, True, False, False]
