"""A local JSON file as numbered rows, whatever its layout: lines, an array, a table, objects one after the other;
packed with gzip or not.

Lines are parsed one by one, so that an error can name the line and a line that is not JSON can be left out.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fccl.data.layouts import rows_key, table_rows
from fccl.errors import DataError
from fccl.storage.files import storage_errors
from fccl.storage.reading import NamedTwice, NotJson, json_value, object_of

UNPACKED_FACTOR, UNPACKED_LEAST = (
    200,
    1 << 26,
)  # text packs to a tenth or a fiftieth of its size; what unpacks to more is no text

_SPACE = re.compile(r"[ \t\r\n]*")
_BOM = b"\xef\xbb\xbf"  # with which some programs begin UTF-8
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # their marks of byte order
_GZIP = b"\x1f\x8b"
_SAVE_AS_UTF8 = "save it as UTF-8"
_OTHER_KINDS = (  # how a file begins, what it is, what to do
    (b"PAR1", "a Parquet file", "give its name the ending .parquet"),
    (b"PK\x03\x04", "a zip archive (or a spreadsheet)", "unpack it, or save the table as JSON lines"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "fetch the file: git lfs pull"),
    (b"<", "a web page or XML", "download the file itself, not the page that shows it"),
    (b"BZh", "packed with bzip2", "unpack it first"),
    (b"\xfd7zXZ\x00", "packed with xz", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd", "unpack it first"),
    (b"ARROW1", "an Arrow file", "save it as .parquet"),
)


@dataclass(frozen=True)
class Unreadable:
    """In the place of a row that is not even JSON: what is wrong with it."""

    what: str


class _Broken(DataError):
    """The file is not JSON as a whole."""


def json_rows(path: Path) -> Iterable[tuple[int, Any]]:
    """The rows of a JSON file, each with its line; its number where rows have no lines of their own.

    Raises `DataError` when the file is none, or has no single reading; `StorageError` when the disk refuses.
    """
    with storage_errors(path, "read"), open(path, "rb") as file:
        packed = file.read(2) == _GZIP
    content = _unpacked(path) if packed else None
    with _open(path, content) as file:
        _refuse_other_kinds(path, file)
        first, alone = _first_line(file)
    if not _is_document(path, first, alone):
        return _line_rows(path, content)
    rows = _document_rows(path, content)
    if first.startswith(b"[") or first.strip() == b"{":
        return rows
    try:
        return list(rows)
    except _Broken:  # no value, nor several one after the other: lines, the first of which is broken
        return _line_rows(path, content)


def _open(path: Path, content: bytes | None) -> BinaryIO:
    if content is not None:
        return io.BytesIO(content)
    with storage_errors(path, "read"):
        return open(path, "rb")


def _unpacked(path: Path) -> bytes:
    """The content of a gzip file.

    Raises `DataError` when it is damaged, or holds so much more than it should that it is a trap.
    """
    with storage_errors(path, "read"):
        packed = path.read_bytes()
    limit = max(UNPACKED_LEAST, UNPACKED_FACTOR * len(packed))
    chunks, size = [], 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            while size <= limit and (chunk := file.read(1 << 20)):
                chunks.append(chunk)
                size += len(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file ({error})", hint="fetch or pack it again") from error
    if size > limit:
        raise DataError(
            f"{path} unpacks to more than {limit:,} bytes",
            hint="unpack it yourself if you trust it, and name the unpacked file",
        )
    return b"".join(chunks)


def _refuse_other_kinds(path: Path, file: BinaryIO) -> None:
    with storage_errors(path, "read"):
        head = file.read(4096)
        file.seek(0)
    if (
        head.startswith(_UTF16) or b"\0" in head[:2]
    ):  # JSON begins with a character of ASCII, which takes one byte in UTF-8 alone
        raise DataError(f"{path} is text in UTF-16 or UTF-32, not in UTF-8", hint=_SAVE_AS_UTF8)
    start = head.removeprefix(_BOM).lstrip()
    for beginning, what, way_out in _OTHER_KINDS:
        if start.startswith(beginning):
            raise DataError(f"{path} is {what}, not JSON", hint=way_out)
    if separator := _separator(start.splitlines()):
        raise DataError(
            f"{path} is a table with {separator} between its columns, not JSON",
            hint="save it as JSON lines: with pandas, read_csv(…).to_json(…, orient='records', lines=True)",
        )


def _separator(lines: list[bytes]) -> str:
    """The separator between the columns of a table in text, "" for a text that is none."""
    if len(lines) < 2 or any(line.startswith((b"{", b"[")) for line in lines[:2]) or _is_json(lines[0]):
        return ""
    for separator, name in ((b"\t", "tabs"), (b",", "commas"), (b";", "semicolons")):
        if separator in lines[0] and separator in lines[1]:
            return name
    return ""


def _first_line(file: BinaryIO) -> tuple[bytes, bool]:
    """The first line that is not empty, and whether it is the only one."""
    lines = (line.removeprefix(_BOM).strip() for line in file)
    first = next((line for line in lines if line), b"")
    return first, not any(lines)


def _is_document(path: Path, first: bytes, alone: bool) -> bool:
    """Whether the file may be anything but a row a line: its first line is not a value, or there is no other."""
    array = (
        first.startswith(b"[") and ".jsonl" not in path.suffixes
    )  # a .json file that begins with an array is that array
    return first[:1] in (b"{", b"[") and (array or alone or not _is_json(first))


def _is_json(line: bytes) -> bool:
    try:
        json_value(line)
    except NotJson as error:
        return isinstance(error, NamedTwice)
    return True


def _line_rows(path: Path, content: bytes | None) -> Iterator[tuple[int, Any]]:
    """One row a line; empty lines are nothing. Only a line feed ends a line: text may hold other separators."""
    with storage_errors(path, "read"), _open(path, content) as file:
        for line, row in enumerate(file, start=1):
            if (said := row.removeprefix(_BOM)).strip():
                yield line, _parse_line(said)


def _parse_line(content: bytes) -> Any:
    try:
        return json_value(content)
    except NotJson as error:
        return Unreadable(str(error))


def _document_rows(path: Path, content: bytes | None) -> Iterator[tuple[int, Any]]:
    """The rows of a file that is read as a whole.

    Unlike a line, an element that is not JSON cannot be left out: nobody can say where the next one starts.
    """
    if content is None:
        with storage_errors(path, "read"):
            content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
        start = _skip_space(text, 0)
        yield from _elements(text, start) if text[start] == "[" else _rows_of_objects(path, text)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _Broken(f"{path}:{line}: is not UTF-8", hint=_SAVE_AS_UTF8) from error
    except json.JSONDecodeError as error:
        raise _broken(path, error.lineno, f"is not JSON: {error.msg}") from error
    except NamedTwice as error:
        raise _Broken(f"{path} {error} in one object", hint="mend the file") from error
    except RecursionError as error:
        raise _Broken(f"{path} is nested too deeply") from error
    except ValueError as error:  # Python's limit for the digits of a number
        raise _Broken(f"{path} holds a number of thousands of digits", hint="mend the file") from error


def _broken(path: Path, line: int, what: str) -> _Broken:
    return _Broken(
        f"{path}:{line}: {what}",
        hint="mend the file; in a .jsonl file, one object a line, --skip-bad-rows can leave such lines out",
    )


def _rows_of_objects(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """One object: a table of some layout, or a row. Several: a row each."""
    objects = list(_objects(text))
    if len(objects) > 1:
        yield from objects
        return
    value = objects[0][1]
    if (key := rows_key(value, str(path))) is not None:
        yield from _elements(text, _place_of(text, key), closed=False)
    elif (rows := table_rows(value, str(path))) is not None:
        yield from enumerate(rows, start=1)
    else:
        yield from objects


def _objects(text: str) -> Iterator[tuple[int, Any]]:
    """Values one after the other, each with the line that it starts on."""
    decoder = json.JSONDecoder(object_pairs_hook=object_of)
    at, line, counted = _skip_space(text, 0), 1, 0
    while at < len(text):
        if text[at] != "{":
            raise json.JSONDecodeError("expected an object", text, at)
        line, counted = line + text.count("\n", counted, at), at
        value, at = decoder.raw_decode(text, at)
        yield line, value
        at = _skip_space(text, at)


def _place_of(text: str, key: str) -> int:
    """Where the value of a key of the outermost object begins."""
    decoder = json.JSONDecoder(object_pairs_hook=object_of)
    at, found = _skip_space(text, _skip_space(text, 0) + 1), -1
    while text[at] != "}":
        name, at = decoder.raw_decode(text, at)
        at = _skip_space(text, _skip_space(text, at) + 1)
        found = at if name == key else found
        _, at = decoder.raw_decode(text, at)
        at = _skip_space(text, at)
        at = _skip_space(text, at + 1) if text[at] == "," else at
    return found  # the last one of that name, as in the value


def _elements(text: str, start: int, closed: bool = True) -> Iterator[tuple[int, Any]]:
    """The elements of the array that begins at `start`, each with the line that it starts on; `closed`: nothing may
    follow it.
    """
    decoder = json.JSONDecoder(object_pairs_hook=object_of)
    at, line, counted = _skip_space(text, start + 1), 1, 0
    while at < len(text) and text[at] != "]":
        line, counted = line + text.count("\n", counted, at), at
        value, at = decoder.raw_decode(text, at)
        yield line, value
        at = _skip_space(text, at)
        if text[at : at + 1] == ",":
            at = _skip_space(text, at + 1)
            if text[at : at + 1] == "]":
                raise json.JSONDecodeError("a comma before the end of the array", text, at)
        elif text[at : at + 1] != "]":
            raise json.JSONDecodeError("expected a comma or the end of the array", text, at)
    if closed and text[at:].strip() != "]":
        raise json.JSONDecodeError("the array does not end, or text follows it", text, at)


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
