"""The label of a row as its topic, and what is no topic: true and false, scores, numbers of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fccl.data.rows.fields import Malformed, Row, in_unicode, is_empty, kind
from fccl.data.rows.marks import as_bool

TOPIC_COLUMNS = ("topic", "category", "label")
_FEW = 20  # so many different labels are never too many
_ROWS_A_TEXT, _ROWS_A_NUMBER = 2, 5  # that a label must have on average to be a topic


@dataclass(frozen=True)
class Label:
    """One row's label in one column: its text, and the number that it is, if it is one."""

    text: str
    number: float | None = None


def label_of(row: Row, column: str, must_be_one: bool = False) -> Label | None:
    """The label of a row. True, false and nothing are none.

    Raises `Malformed` when it must be one and is a list or an object.
    """
    value = row.get(column)
    if is_empty(value) or as_bool(value) is not None:
        return None
    if isinstance(value, str):
        return Label(" ".join(in_unicode(value, column).split()), _number(value))
    if isinstance(value, int | float):
        return Label(str(value), float(value) if abs(value) < 1e300 else 0.0)
    if must_be_one:
        raise Malformed(f"{column!r} must be a label, found {kind(value)}")
    return None


def why_no_topics(labels: Sequence[Label]) -> str:
    """Why a column's labels are no topics, "" when they are."""
    different = len({label.text for label in labels})
    numbers = all(label.number is not None for label in labels)
    if different <= _FEW:
        return ""
    if numbers and any(label.number != int(label.number or 0) for label in labels):
        return f"scores, {different:,} different ones in {len(labels):,} rows"
    if different * (_ROWS_A_NUMBER if numbers else _ROWS_A_TEXT) > len(labels):
        return f"{different:,} different {'numbers' if numbers else 'labels'} in {len(labels):,} rows"
    return ""


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if abs(number) < 1e300 else None
