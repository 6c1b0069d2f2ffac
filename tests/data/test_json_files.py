"""JSON files in every layout, packed or not, and files that are something else under a JSON name."""

import contextlib
import gzip
import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.data import json_files
from fccl.data.json_files import Unreadable, json_rows
from fccl.data.sources import kind_of, open_source
from fccl.errors import DataError
from tests.examples import few

ROWS = [{"instruction": f"Q{index}\u2028", "input": "", "output": f"A {index}"} for index in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
FRAME = pd.DataFrame(ROWS)
LAYOUTS = {
    "lines": LINES,
    "lines with empty ones": "\n\n" + LINES.replace("\n", "\r\n\r\n"),
    "array": json.dumps(ROWS),
    "array over lines": json.dumps(ROWS, indent=2),
    "array, a row a line": "[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n",
    "wrapped": json.dumps({"version": "1", "data": ROWS}),
    "wrapped over lines": json.dumps({"data": ROWS, "version": 1}, indent=1),
    "wrapped under another name": json.dumps({"examples": ROWS}),
    "objects over lines": "\n".join(json.dumps(row, indent=4) for row in ROWS),
    "objects without anything between": "".join(map(json.dumps, ROWS)),
    "objects with spaces between": "  ".join(map(json.dumps, ROWS)),
    "by columns": FRAME.to_json(),
    "by columns over lines": FRAME.to_json(indent=2),
    "by index": FRAME.to_json(orient="index"),
    "split": FRAME.to_json(orient="split"),
    "table": FRAME.to_json(orient="table", index=False),
    "records": FRAME.to_json(orient="records"),
    "records in lines": FRAME.to_json(orient="records", lines=True),
    "columns as lists": json.dumps(FRAME.to_dict(orient="list")),
}


def read(path: Path) -> list:
    return list(json_rows(path))


@pytest.mark.parametrize("ending", ["json", "jsonl", "JSON", "json.gz", "jsonl.gz"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_under_every_name_gives_the_rows(tmp_path, layout, mark, ending):
    file = tmp_path / f"rows.{ending}"
    content = (mark + LAYOUTS[layout]).encode()
    file.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    assert kind_of(str(file)) == "file"
    rows = list(open_source(str(file), "sft").rows)
    assert [row for _, row in rows] == ROWS
    assert sorted(line for line, _ in rows) == [line for line, _ in rows]


@pytest.mark.parametrize("indent", [None, 1, 4])
def test_wrapped_and_concatenated_rows_come_with_their_lines(tmp_path, indent):
    for name, text in (
        ("wrapped", json.dumps({"info": [1], "data": ROWS}, indent=indent)),
        ("objects", "\n".join(json.dumps(row, indent=indent) for row in ROWS)),
    ):
        (tmp_path / "rows.json").write_text(text)
        for line, row in read(tmp_path / "rows.json"):
            rest = "\n".join(text.split("\n")[line - 1 :])
            assert json.dumps(row["instruction"]) in rest, name
            assert json.dumps(row["instruction"]) not in "\n".join(text.split("\n")[:line]) or indent is None, name


def test_one_row_alone_is_a_row(tmp_path):
    for text in (json.dumps(ROWS[0]), json.dumps(ROWS[0], indent=1), json.dumps([ROWS[0]])):
        (tmp_path / "rows.jsonl").write_text(text)
        assert [row for _, row in read(tmp_path / "rows.jsonl")] == ROWS[:1]


@pytest.mark.parametrize("first", ["{oops", '{"a": }', '{"a": "b"', "oops", '{"a": 1} trailing', "'a'"])
def test_a_broken_first_line_does_not_hide_the_others(tmp_path, first):
    (tmp_path / "rows.jsonl").write_text(first + "\n" + LINES)
    (line, bad), *others = read(tmp_path / "rows.jsonl")
    assert line == 1
    assert isinstance(bad, Unreadable)
    assert [row for _, row in others] == ROWS


def test_a_first_line_that_is_not_utf8_or_nested_too_deeply_does_not_hide_the_others(tmp_path):
    for first in (b'{"a": "\xff"}', b'{"a": ' + b"[" * 100_000, b'{"a": ' + b"1" * 5000 + b"}"):
        (tmp_path / "rows.jsonl").write_bytes(first + b"\n" + LINES.encode())
        (_, bad), *others = read(tmp_path / "rows.jsonl")
        assert isinstance(bad, Unreadable)
        assert len(others) == 3


CSV = FRAME.assign(instruction=["a", "b", "c"])
OTHER_KINDS = [
    (CSV.to_csv(index=False).encode(), "a table with commas between its columns", "read_csv"),
    (CSV.to_csv(index=False, sep="\t").encode(), "a table with tabs between its columns", "read_csv"),
    (CSV.to_csv(index=False, sep=";").encode(), "a table with semicolons between its columns", "read_csv"),
    (CSV.to_csv(index=False, quoting=1).encode("utf-8-sig"), "a table with commas", "read_csv"),
    (b"PAR1\x15\x04", "a Parquet file", ".parquet"),
    (b"PK\x03\x04\x14", "a zip archive", "unpack"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12\n", "a pointer of Git LFS", "git lfs pull"),
    (b"\n<!DOCTYPE html>\n<html>", "a web page", "download"),
    (b"BZh91AY", "packed with bzip2", "unpack"),
    (b"\xfd7zXZ\x00\x00", "packed with xz", "unpack"),
    (b"\x28\xb5\x2f\xfd\x04", "packed with zstd", "unpack"),
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", ["json", "jsonl"])
@pytest.mark.parametrize(("content", "what", "way_out"), OTHER_KINDS)
def test_a_file_of_another_kind_says_what_it_is_and_what_to_do(tmp_path, content, what, way_out, ending, packed):
    file = tmp_path / f"rows.{ending}"
    file.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=rf"rows\.{ending} is {what}.*, not JSON") as caught:
        read(file)
    assert way_out in caught.value.hint


@pytest.mark.parametrize("text", ["", "\n \n", "\ufeff", "[]", "[\n]"])
def test_an_empty_file_has_no_rows(tmp_path, text):
    (tmp_path / "rows.json").write_text(text)
    assert read(tmp_path / "rows.json") == []


@pytest.mark.parametrize("cut", [1, 5, 12, 30, -9, -1])
def test_a_damaged_gzip_file_says_so(tmp_path, cut):
    packed = gzip.compress(LINES.encode())
    broken = packed[:cut] if cut != 12 else packed[:12] + b"\xff\xff\xff" + packed[15:]
    (tmp_path / "rows.jsonl.gz").write_bytes(broken)
    if cut == 1:
        assert isinstance(read(tmp_path / "rows.jsonl.gz")[0][1], Unreadable)
        return
    with pytest.raises(DataError, match="is a damaged gzip file"):
        read(tmp_path / "rows.jsonl.gz")


def test_a_gzip_file_that_unpacks_to_far_more_than_it_is_is_a_trap(tmp_path, monkeypatch):
    monkeypatch.setattr(json_files, "UNPACKED_LEAST", 1 << 20)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b" " * (1 << 23)))
    with pytest.raises(DataError, match=r"unpacks to more than 1,6\d\d,\d\d\d bytes") as caught:
        read(tmp_path / "rows.jsonl.gz")
    assert "unpack it yourself" in caught.value.hint
    (tmp_path / "small.jsonl.gz").write_bytes(gzip.compress(b" " * (1 << 19) + LINES.encode()))
    assert len(read(tmp_path / "small.jsonl.gz")) == 3


@given(
    content=st.binary(max_size=60)
    | st.text('{}[]",: \n01ae').map(str.encode)
    | st.sampled_from(list(LAYOUTS)).map(lambda name: LAYOUTS[name][:-3].encode())
)
@settings(deadline=None, max_examples=few(150))
def test_no_content_is_more_than_an_error_of_ours(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.jsonl"
    file.write_bytes(content)
    with contextlib.suppress(DataError):
        read(file)


@pytest.mark.parametrize("name", ["instruction", "output"])
def test_a_row_that_gives_a_name_twice_is_a_bad_row_of_its_line_and_no_document_at_all(tmp_path, name):
    double = json.dumps(ROWS[1])[:-1] + f', "{name}": "other"}}'
    for place in range(3):
        rows = [json.dumps(row) for row in ROWS]
        rows[place] = double
        (tmp_path / "rows.jsonl").write_text("\n".join(rows))
        found = dict(read(tmp_path / "rows.jsonl"))
        assert [line for line, row in found.items() if isinstance(row, Unreadable)] == [place + 1]
        (tmp_path / "rows.json").write_text(f"[{', '.join(rows)}]")
        with pytest.raises(DataError, match=f"names '{name}' twice"):
            read(tmp_path / "rows.json")
