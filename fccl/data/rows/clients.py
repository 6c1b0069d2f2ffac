"""The client of a row: a name in text or a whole number, the same kind in every row of a source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fccl.data.rows.fields import Malformed, Row, in_unicode, is_empty, kind
from fccl.display.words import nearest

_TEXT, _NUMBER = "text", "a whole number"


@dataclass
class ClientNames:
    """Reads the column that names a row's client; empty: rows name nobody."""

    column: str
    kind: str = field(default="", init=False)  # of the names so far

    def of(self, row: Row) -> str:
        """The name, "" without a column.

        Raises `Malformed` when there is none, or it is of another kind than those before: 7 and "7" may be two clients.
        """
        if not self.column:
            return ""
        if self.column not in row:
            guess = nearest(self.column, map(str, row))
            raise Malformed(
                f"has no {self.column!r} (found: {', '.join(map(str, row))})",
                hint=f"CLIENT_COLUMN: did you mean {guess}?" if guess else "CLIENT_COLUMN must name one of these",
            )
        _require_name(row[self.column], self.column)
        found, name = _named(row[self.column], self.column)
        if self.kind and found != self.kind:
            raise Malformed(f"{self.column!r} is {found}, and in earlier rows {self.kind}")
        self.kind = found
        return name


def _require_name(value: Any, column: str) -> None:
    """Raises `Malformed` where nothing is there, and for a text that programs write where nothing is."""
    if not is_empty(value):
        return
    if isinstance(value, str) and value.strip():
        raise Malformed(
            f"{column!r} is {value.strip()!r}, which stands for a missing value",
            hint="where it is a client's name, spell it otherwise in the data",
        )
    raise Malformed(f"{column!r} is empty")


def _named(value: Any, column: str) -> tuple[str, str]:
    """The kind of a name, and the name. A table with missing values has its whole numbers as 7.0."""
    if isinstance(value, str):
        return _TEXT, " ".join(in_unicode(value, column).split())
    if isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer():
        return _NUMBER, str(int(value))
    raise Malformed(f"{column!r} must be text or a whole number, found {kind(value)}")
