"""A setting's group, explanation and range: what a field of `Settings` says of itself, and the words for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo

from fccl.display.plain_text import printable
from fccl.errors import SettingsError

OWN_CLASS = "package.module:Class"
WHOLE_NUMBER = re.compile(r"\s*[0-9]{1,9}\s*")  # one that stands in a text

_SHOWN = 200  # letters of a wrong value
_KINDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    str: "text",
}
_SIGNS: tuple[tuple[str, Callable[[Any], str]], ...] = (
    ("ge", lambda limit: f">= {limit:,}"),
    ("gt", lambda limit: f"> {limit:,}"),
    ("lt", lambda limit: f"< {limit:,}"),
    ("le", lambda limit: f"<= {limit:,}"),
)


def knob(group: str, default: Any, explanation: str, choices: Sequence[str] = (), **limits: Any) -> Any:
    """A field of `Settings`: its group in `--help`, its default, one line of explanation and its range.

    `choices` are names beside which a class of one's own may stand.
    """
    if isinstance(default, float):
        limits = {"allow_inf_nan": False} | limits
    extra: dict[str, Any] = {"group": group, **({"choices": list(choices)} if choices else {})}
    return Field(default=default, description=explanation, json_schema_extra=extra, **limits)


def group_of(field: FieldInfo) -> str:
    """The group that `--help` and the settings page show a setting in."""
    return str(_extra(field).get("group", ""))


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """The names that a setting may have beside a class of one's own; empty where it takes no class."""
    found = _extra(field).get("choices")
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _extra(field: FieldInfo) -> Mapping[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def allowed(field: FieldInfo) -> str:
    """The range of a setting in words, for `--help` and for errors: "a number > 0", "one of a, b"."""
    kind = field.annotation
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if choices := choices_of(field):
        return f"one of {', '.join(choices)}, or {OWN_CLASS}"
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    limits = " and ".join(
        sign(value)
        for limit in field.metadata
        for name, sign in _SIGNS
        if (value := getattr(limit, name, None)) is not None
    )
    not_empty = "(not empty)" if any(getattr(limit, "min_length", None) for limit in field.metadata) else ""
    return " ".join(part for part in (_KINDS.get(kind, "a value"), limits, not_empty) if part)


class one_line_errors:
    """Turns pydantic's errors into one `SettingsError`: which setting, what came, what is allowed."""

    def __init__(self, fields: Mapping[str, FieldInfo]) -> None:
        self._fields = fields

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ValidationError):
            raise SettingsError("; ".join(_explain(problem, self._fields) for problem in error.errors())) from None


def _explain(problem: Mapping[str, Any], fields: Mapping[str, FieldInfo]) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return str(message)
    name = str(problem["loc"][0])
    value = printable(str(problem["input"]), _SHOWN + 1)
    came = f"{name.upper()}={value if len(value) <= _SHOWN else value[:_SHOWN] + '...'}"
    field = fields.get(name)
    if field is None or problem["type"] == "value_error":
        return f"{came}: {message}"
    return f"{came}: allowed is {allowed(field)}"
