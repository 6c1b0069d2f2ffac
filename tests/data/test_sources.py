"""Sources: real files in every ending, the line of each row, and a hub that is not there."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import datasets
import huggingface_hub
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.apps.main import main
from fccl.data import sources
from fccl.data.json_files import Unreadable
from fccl.data.sources import kind_of, open_source
from fccl.errors import DataError, StorageError
from tests.examples import few

ROOT = Path(__file__).resolve().parents[2]
ROWS = [{"instruction": "a", "response": "b"}, {"instruction": "c\u2028d", "response": "e"}]


def rows_of(path: Path) -> list:
    return list(open_source(str(path), "sft").rows)


def test_json_lines_skip_empty_lines_and_keep_the_real_line_numbers(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ROWS[0]) + "\n\n  \n" + json.dumps(ROWS[1], ensure_ascii=False), encoding="utf-8")
    assert rows_of(file) == [(1, ROWS[0]), (4, ROWS[1])]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"{oops", "is not JSON"),
        (b'{"a": "\xff"}', "is not UTF-8 (byte 8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"1" * 5000, "is not JSON"),
    ],
)
def test_a_line_that_cannot_be_read_does_not_hide_the_others(tmp_path, line, what):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(json.dumps(ROWS[0]).encode() + b"\n" + line + b"\n" + json.dumps(ROWS[1]).encode())
    (_, first), (number, bad), (_, last) = rows_of(file)
    assert (first, last, number) == (*ROWS, 2)
    assert isinstance(bad, Unreadable)
    assert what in bad.what


@given(
    values=st.lists(
        st.recursive(
            st.none() | st.integers() | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        )
    ),
    indent=st.none() | st.integers(0, 3),
    before=st.sampled_from(["", "\n", " \n\n ", "\ufeff"]),
)
@settings(deadline=None, max_examples=few(40))
def test_elements_of_an_array_come_with_the_line_that_they_start_on(tmp_path_factory, values, indent, before):
    file = tmp_path_factory.mktemp("array") / "rows.json"
    text = before + json.dumps(values, indent=indent) + "\n"
    file.write_text(text, encoding="utf-8")
    found = rows_of(file)
    assert [value for _, value in found] == values
    if indent is not None and values:
        elements = [json.dumps(value, indent=indent).count("\n") + 1 for value in values]
        first = before.count("\n") + 2
        assert [line for line, _ in found] == [first + sum(elements[:index]) for index in range(len(values))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1},\n {"a": }\n]', r"rows\.json:2: is not JSON: Expecting value"),
        ('[{"a": 1}\n {"a": 2}]', r"rows\.json:2: is not JSON: expected a comma"),
        ('[{"a": 1},\n]', r"rows\.json:2: is not JSON: a comma before the end"),
        ('[{"a": 1}\n', r"rows\.json:2: is not JSON: expected a comma or the end"),
        ('[{"a": 1}]\n]', r"rows\.json:\d: is not JSON: the array does not end, or text follows it"),
        ("[", r"rows\.json:1: is not JSON: the array does not end"),
    ],
)
def test_a_broken_array_names_its_line_and_cannot_be_skipped(tmp_path, text, message):
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        rows_of(tmp_path / "rows.json")
    assert "jsonl" in caught.value.hint


def test_an_array_that_is_not_utf8_names_its_line(tmp_path):
    (tmp_path / "rows.json").write_bytes(b'[{"a": 1},\n{"a": "\xff"}]')
    with pytest.raises(DataError, match=r"rows\.json:2: is not UTF-8") as caught:
        rows_of(tmp_path / "rows.json")
    assert caught.value.hint == "save it as UTF-8"


def test_an_array_with_a_number_that_nobody_reads(tmp_path):
    (tmp_path / "rows.json").write_text("[" + "1" * 5000 + "]")
    with pytest.raises(DataError, match=r"rows\.json holds a number of thousands of digits"):
        rows_of(tmp_path / "rows.json")


@pytest.mark.parametrize("ending", ["json", "jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_a_file_in_another_encoding_is_not_a_file_of_bad_rows(tmp_path, ending, encoding):
    file = tmp_path / f"rows.{ending}"
    file.write_bytes(json.dumps(ROWS).encode(encoding))
    with pytest.raises(DataError, match="is text in UTF-16 or UTF-32, not in UTF-8") as caught:
        rows_of(file)
    assert caught.value.hint == "save it as UTF-8"


def test_a_json_file_may_hold_lines(tmp_path):
    (tmp_path / "rows.json").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert rows_of(tmp_path / "rows.json") == [(1, ROWS[0]), (2, ROWS[1])]


def test_parquet_is_numbered_by_row_and_leaves_nothing_behind(tmp_path):
    nested = [
        {"instruction": "a", "completions": [{"response": "x", "overall_score": 3.5}]},
        {"instruction": "b", "completions": None},
    ]
    datasets.Dataset.from_list(nested).to_parquet(str(tmp_path / "rows.parquet"))
    assert rows_of(tmp_path / "rows.parquet") == [(1, nested[0]), (2, nested[1])]
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_a_parquet_file_that_is_none(tmp_path):
    (tmp_path / "rows.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="not a readable parquet file"):
        rows_of(tmp_path / "rows.parquet")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.json", "is not there"),
        ("table.csv", "neither a file"),
        ("../x", "neither a file"),
        (".", "is a folder"),
        ("/dev/null", "is a device or a pipe, not a file"),
        ("x" * 97, "neither a file"),
        ("x" * 5000, "neither a file"),
        ("x" * 5000 + ".json", "is not there"),
        ("a\0b", "neither a file"),
    ],
)
def test_names_that_are_no_source(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message):
        open_source(name, "sft")


def test_a_damaged_parquet_file_is_said_once(tmp_path, capfd):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match="is not a readable parquet file") as caught:
        list(open_source(str(tmp_path / "rows.parquet"), "sft").rows)
    assert caught.value.hint
    assert capfd.readouterr() == ("", "")


def test_a_file_of_unknown_ending(tmp_path):
    (tmp_path / "rows.csv").write_text("instruction,response\n")
    with pytest.raises(DataError, match="unknown ending") as caught:
        open_source(str(tmp_path / "rows.csv"), "sft")
    assert ".jsonl" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("builtin", "builtin"),
        ("tatsu-lab/alpaca", "hub"),
        ("openbmb/UltraFeedback", "hub"),
        ("squad", "hub"),
        ("a/b.json", "file"),
    ],
)
def test_kinds(name, kind):
    assert kind_of(name) == kind


def test_an_unreadable_file_is_a_storage_error(tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    monkeypatch.setattr("builtins.open", lambda *arguments, **more: (_ for _ in ()).throw(PermissionError(13, "no")))
    with pytest.raises(StorageError, match="permission denied"):
        rows_of(tmp_path / "rows.jsonl")


# The hub
# ---------------------------------------------------------------------------------------------------------------


def test_a_hub_out_of_reach_is_one_error_with_the_ways_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert main(["prepare", "--sft-data", "tatsu-lab/alpaca", "--data-dir", str(tmp_path / "data")]) == 1
    said = capsys.readouterr().err
    assert all(word in said for word in ("tatsu-lab/alpaca", "local", "builtin", "HF_HUB_OFFLINE"))
    assert not (tmp_path / "data").exists()


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}])
def test_a_hub_that_the_environment_puts_out_of_reach_is_the_same_error(tmp_path, environment):
    command = [
        sys.executable,
        "-m",
        "fccl",
        "prepare",
        "--sft-data",
        "tatsu-lab/alpaca",
        "--data-dir",
        str(tmp_path / "data"),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment, "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "tatsu-lab/alpaca" in done.stderr
    assert all(word in done.stderr for word in ("local", "builtin", "HF_HUB_OFFLINE"))
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_hub_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(sources, "HUB_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        api = huggingface_hub.HfApi(endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
        with pytest.raises(DataError, match="cannot be reached"):
            open_source("owner/name", "sft")


@pytest.fixture
def reachable_hub(monkeypatch):
    """The hub's answers, without the hub: what `datasets` returns for a data set with these splits."""

    def serve(*splits: str) -> None:
        found = {split: datasets.Dataset.from_list([{"instruction": split, "response": "b"}]) for split in splits}
        monkeypatch.setattr(sources, "ask_hub", lambda name: "abc123")
        monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(found))

    return serve


@pytest.mark.parametrize(
    ("splits", "phase", "chosen"),
    [
        (("train", "test"), "sft", "train"),
        (("test_sft", "train_gen", "train_prefs", "train_sft"), "va", "train_prefs"),
        (("train_prefs", "train_sft"), "sft", "train_sft"),
    ],
)
def test_the_split_of_a_hub_data_set(reachable_hub, splits, phase, chosen):
    reachable_hub(*splits)
    source = open_source("owner/name", phase)
    assert (source.kind, source.revision) == ("hub", "abc123")
    assert list(source.rows) == [(1, {"instruction": chosen, "response": "b"})]


def test_a_hub_data_set_without_a_training_split(reachable_hub):
    reachable_hub("test")
    with pytest.raises(DataError, match=r"no split 'train' \(it has test\)"):
        open_source("owner/name", "va")
