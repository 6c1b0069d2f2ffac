"""The results of a comparison, read again and again while somebody writes them."""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fccl.paths import LogPaths
from fccl.storage.files import write_text
from fccl.view import tail as module
from fccl.view.tail import ComparisonReader
from tests.compare.made_up import comparison
from tests.examples import few

WHOLE = comparison().model_dump_json(indent=1)
ROW = comparison().rows[0].model_dump_json()


@pytest.fixture
def path(tmp_path):
    return LogPaths(tmp_path).compare.results


def test_without_results_there_is_nothing_until_there_are_some(path):
    reader = ComparisonReader(path)
    assert reader.refresh() is None
    write_text(path, WHOLE)
    found = reader.refresh()
    assert found.results == comparison()
    assert found.written == pytest.approx(path.stat().st_mtime)
    path.unlink()
    assert reader.refresh() is None


def test_the_file_is_read_only_when_it_changed(path, monkeypatch):
    write_text(path, WHOLE)
    reader, reads = ComparisonReader(path), []
    read_small = module.read_small
    monkeypatch.setattr(module, "read_small", lambda *arguments: reads.append(1) or read_small(*arguments))
    first = reader.refresh()
    assert reader.refresh() is first
    assert len(reads) == 1
    write_text(path, comparison(model="another").model_dump_json())
    assert reader.refresh().results.model == "another"
    assert len(reads) == 2
    os.utime(path, ns=(1, 1))  # written anew with the same length
    assert reader.refresh() is not first
    assert len(reads) == 3


@settings(max_examples=few(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, len(WHOLE) - 1))
def test_a_half_written_file_is_none_and_the_whole_one_is_read_after_it(path, length):
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(WHOLE[:length])
    reader = ComparisonReader(path)
    assert reader.refresh() is None
    with open(path, "a") as file:
        file.write(WHOLE[length:])
    assert reader.refresh().results == comparison()


@settings(max_examples=few(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_a_comparison_or_none(path, data):
    path.parent.mkdir(exist_ok=True)
    place = data.draw(st.integers(0, len(WHOLE)))
    path.write_bytes(
        WHOLE[:place].encode()
        + data.draw(st.binary(max_size=4))
        + WHOLE[place + data.draw(st.integers(0, 4)) :].encode()
    )
    found = ComparisonReader(path).refresh()
    assert found is None or found.results.rows


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        ROW.encode(),
        WHOLE.replace("shuffled", "other", 1).encode(),  # a row of a scenario that is not there
        WHOLE.replace('"methods"', '"ways"').encode(),
        WHOLE.replace('"value": 6.0', '"value": NaN').encode(),
        WHOLE.replace('"value": 6.0', '"value": 1e999').encode(),
        comparison(rows=()).model_dump_json().encode(),
    ],
    ids=range(12),
)
def test_a_foreign_file_is_none(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    assert ComparisonReader(path).refresh() is None


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_none(path, make):
    path.parent.mkdir()
    make(path)
    assert ComparisonReader(path).refresh() is None


def test_a_file_in_the_place_of_the_folder_is_none(path):
    path.parent.write_text("")
    assert ComparisonReader(path).refresh() is None
