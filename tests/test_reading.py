"""Files that somebody else wrote: bounded, no link followed, no pipe waited for; their text fit for a terminal."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.errors import StorageError, UpdateRejected
from fccl.reading import printable, read_bounded


def test_text_from_elsewhere_is_fit_for_a_terminal():
    assert printable("a\x1b[31mred\nline\u202e\x00") == r"a\x1b[31mred line\u202e\x00"
    assert printable("x" * 1000) == "x" * 500
    assert printable("a\n\tb\r\x85", keep="\n") == "a\n b  "


@given(st.text(st.characters()), st.integers(1, 50))
def test_whatever_the_text_is_a_terminal_shows_it_and_does_nothing(text, limit):
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
    shown.encode()


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
