"""Marks by which a row or a message says that it is not to be learnt.

`label: false` (KTO: an undesirable answer), `kto_tag: false`, `weight: 0`, `train: false`, `loss: false`, `masked:
true` and their like.
"""

from __future__ import annotations

from typing import Any

from fccl.data.rows.fields import Malformed, MarkedOut, Row, is_empty

_FALSE_MEANS = ("label", "kto_tag", "train", "trainable", "train_on_turn", "loss", "weight", "loss_weight")
_TRUE_MEANS = ("masked", "mask", "ignore", "skip")
MARKS = (*_FALSE_MEANS, *_TRUE_MEANS)
_NUMBERS = ("weight", "loss_weight", "train", "trainable", "train_on_turn", "masked")  # 0 and 1 are false and true
_WORDS = {"false": False, "true": True}


def check_marks(marked: Row) -> None:
    """Raises `MarkedOut` when the row or message says that it is not to be learnt, `Malformed` when it wants to be
    unlearnt.
    """
    if column := _marking(marked):
        raise MarkedOut(f"{column!r} says that it is not to be learnt")


def is_marked_out(message: Row) -> bool:
    """Whether an earlier message of a conversation says that it is not to be learnt, or wants to be unlearnt."""
    try:
        return bool(_marking(message))
    except Malformed:
        return True


def _marking(marked: Row) -> str:
    """The column that says so; empty where none does."""
    says = (column for column in MARKS if column in marked and _says(marked[column], column) is (column in _TRUE_MEANS))
    return next(says, "")


def is_mark(row: Row, column: str) -> bool:
    """Whether this column of this row was understood as a mark."""
    return column in MARKS and _says(row.get(column), column) is not None


def as_bool(value: Any) -> bool | None:
    """True and false, also as words or as numpy's; None for all else."""
    if isinstance(value, str):
        return _WORDS.get(value.strip().casefold())
    return bool(value) if isinstance(value, bool) or type(value).__name__ in ("bool_", "bool") else None


def _says(value: Any, column: str) -> bool | None:
    """True or false, None for a value that is no mark: 0.5 is a weight that nobody applies, so a column that is not
    used.
    """
    if is_empty(value):
        return None
    said = as_bool(value)
    if said is not None or column not in _NUMBERS:
        return said
    number = _number(value)
    if number is not None and number < 0:
        raise Malformed(f"{column!r} is negative, and nothing can be unlearnt")
    return {0.0: False, 1.0: True}.get(number) if number is not None else None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None
