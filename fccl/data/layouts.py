"""The ways in which programs lay out a table in one JSON value, told apart only where there is a single reading.

[{…}, {…}]                              an array of rows
{"data": [{…}, {…}], …}                 one list of rows, whatever it is called (also pandas' orient="table")
{"instruction": {"0": …}, …}            pandas' default: a column is an object, by index
{"0": {"instruction": …}, …}            orient="index"
{"instruction": […], …}                 columns as lists
{"columns": […], "data": [[…], …]}      orient="split"
{"instruction": …, "output": …}         one row
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fccl.errors import DataError

# A name of an accepted column says which way round a table is.
_SFT_NAMES = (
    "instruction",
    "input",
    "context",
    "output",
    "response",
    "prompt",
    "completion",
    "question",
    "messages",
    "conversations",
)
_VA_NAMES = ("chosen", "rejected", "preferred", "dispreferred", "completions")
COLUMN_NAMES = frozenset((*_SFT_NAMES, *_VA_NAMES))
_MESSAGE_KEYS = ({"role", "content"}, {"role", "tool_calls"}, {"from", "value"})
_SAVE = "save it as JSON lines: with pandas, to_json(…, orient='records', lines=True)"


def rows_key(value: Mapping[str, Any], source: str) -> str | None:
    """The key under which an object holds the rows as a list of objects, None when it does not.

    Raises `DataError` when there are several such lists.
    """
    if any(isinstance(value[name], str) for name in COLUMN_NAMES & value.keys()):
        return None
    lists = [
        key
        for key, inner in value.items()
        if _is_list(inner) and all(isinstance(item, Mapping) and not is_message(item) for item in inner)
    ]
    if len(lists) > 1 and not COLUMN_NAMES & set(lists):
        raise DataError(
            f"{source} holds several lists of rows ({', '.join(lists)})",
            hint="save the one that you want as a file of its own",
        )
    return lists[0] if len(lists) == 1 else None


def table_rows(value: Mapping[str, Any], source: str) -> list[dict[str, Any]] | None:
    """The rows of a table that one object holds by its columns or by its index, None when it is no such table.

    Raises `DataError` when its columns have different lengths.
    """
    if _is_split(value):
        return [dict(zip(value["columns"], row, strict=True)) for row in value["data"]]
    inner = list(value.values())
    if inner and all(isinstance(one, Mapping) and one and not is_message(one) for one in inner):
        return _by_key(value, source)
    if (
        inner
        and COLUMN_NAMES & value.keys()
        and all(_is_list(one) for one in inner)
        and not all(is_message(item) for one in inner for item in one)
    ):
        _require_one_length(value, source)
        return [dict(zip(value, row, strict=True)) for row in zip(*inner, strict=True)]
    return None


def is_message(item: Any) -> bool:
    """Whether an object is one message of a conversation, not a row."""
    return isinstance(item, Mapping) and any(keys <= item.keys() for keys in _MESSAGE_KEYS)


def _by_key(value: Mapping[str, Mapping[str, Any]], source: str) -> list[dict[str, Any]] | None:
    first = next(iter(value.values()))
    if COLUMN_NAMES & value.keys():
        _require_one_length(value, source)
        if any(column.keys() != first.keys() for column in value.values()):
            raise DataError(f"{source} holds columns whose rows have different names", hint=_SAVE)
        return [{column: cells[index] for column, cells in value.items()} for index in first]
    if any(COLUMN_NAMES & row.keys() for row in value.values()) or all(key.isdigit() for key in value):
        return [dict(row) for row in value.values()]
    return None


def _is_split(value: Mapping[str, Any]) -> bool:
    columns, data = value.get("columns"), value.get("data")
    if not isinstance(columns, list) or not isinstance(data, list) or not (columns and data):
        return False
    return all(isinstance(name, str) for name in columns) and all(
        isinstance(row, list) and len(row) == len(columns) for row in data
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _require_one_length(value: Mapping[str, Sequence[Any] | Mapping[str, Any]], source: str) -> None:
    lengths = {column: len(cells) for column, cells in value.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{column}: {length}" for column, length in lengths.items())
        raise DataError(f"{source} holds columns of different lengths ({found})", hint=_SAVE)
