"""Fields of a row: text, optional text, and what means that nothing is there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]

# In an optional column, what programs write where nothing is. Not in an answer: there "N/A" may be what was answered.
_NOTHING_WORDS = frozenset({"nan", "n/a", "<na>"})
_NOTHING_TYPES = frozenset({"NAType", "NaTType"})  # pandas' own; it need not be installed


class Malformed(ValueError):
    """The fault of a row; file and line are added where they are known. `hint` is a way out of its own, if any."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


class MarkedOut(ValueError):
    """The row says of itself that it is not to be learnt."""


def is_nothing(value: Any) -> bool:
    """Whether a value says that nothing is there: null, or NaN in a table that has no null."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ in _NOTHING_TYPES


def is_empty(value: Any) -> bool:
    """Whether an optional column has nothing in it: nothing, no text, the word for nothing, an empty list."""
    if isinstance(value, str):
        return not value.strip() or value.strip().casefold() in _NOTHING_WORDS
    return is_nothing(value) or (isinstance(value, list | tuple | Mapping) and not value)


def not_empty(row: Row, column: str) -> str:
    """A text that must be there. Raises `Malformed`."""
    found = text(row, column)
    if not found:
        raise Malformed(f"{column!r} is empty")
    return found


def optional(row: Row, column: str) -> str:
    """A text, "" when nothing is there. Raises `Malformed`."""
    return "" if is_empty(row.get(column)) else text(row, column)


def text(row: Row, column: str) -> str:
    """A text without the white space around it; null and NaN are the empty text. Raises `Malformed`."""
    if column not in row:
        raise Malformed(f"has no {column!r}")
    value = row[column]
    if is_nothing(value):
        return ""
    if not isinstance(value, str):
        raise Malformed(f"{column!r} must be text, found {kind(value)}")
    return in_unicode(value, column).strip()


def in_unicode(value: str, column: str) -> str:
    """The text itself. Raises `Malformed` for half a surrogate pair: JSON can spell one, no UTF-8 file can hold it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Malformed(f"{column!r} holds half a surrogate pair, which is no character") from None
    return value


def kind(value: Any) -> str:
    """The kind of a value, as an error message calls it."""
    names = {
        type(None): "null",
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
