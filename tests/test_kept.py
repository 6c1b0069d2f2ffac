"""`benchmarks/kept.py`: figures of runs that are over outlast the process, whenever it is stopped."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.kept import Kept
from tests.examples import few

NAMED = st.dictionaries(st.text(), st.lists(st.floats(allow_nan=False)).map(tuple), max_size=6)


@settings(max_examples=few(100))
@given(NAMED, st.data())
def test_a_file_cut_anywhere_gives_back_its_whole_lines_and_takes_the_others_again(figures, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kept.jsonl"
        first = Kept(path)
        for name in figures:
            first.figures(name, lambda name=name: figures[name])
        written = path.read_bytes() if path.is_file() else b""
        left = written[: data.draw(st.integers(0, len(written)))]
        path.write_bytes(left)
        for measured in (len(figures) - left.count(b"\n"), 0):
            again, ran = Kept(path), []
            for name in figures:
                found = again.figures(name, lambda name=name, ran=ran: ran.append(name) or figures[name])
                assert found == figures[name]
            assert len(ran) == measured
        assert path.read_bytes() == written


def test_without_a_file_figures_are_measured_once_in_a_process():
    kept = Kept(None)
    assert kept.figures("a", lambda: [1.0]) == kept.figures("a", lambda: pytest.fail("measured again")) == (1.0,)


def test_a_failing_measurement_keeps_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        Kept(tmp_path / "kept.jsonl").figures("a", lambda: [1 / 0])
    assert not (tmp_path / "kept.jsonl").exists()
