"""The `.env` that `fccl init` writes: settings in groups, each with a comment that says what it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fccl.config import Settings
from fccl.display.plain_text import one_line

HEAD = """\
# Written by `fccl init`. Every command that is started in this folder reads it. An argument or the environment wins:
# `fccl run --fed-rounds 5`. `fccl run --help-all` and docs/settings.md explain every setting.
"""
_PLAIN = re.compile(r"[\w./:@+,-]+", re.ASCII)


@dataclass(frozen=True)
class Part:
    """Settings that belong together, with the comment above them."""

    comment: str
    values: Mapping[str, object]


def dotenv(parts: Sequence[Part]) -> str:
    """The whole file. `fccl` reads from it the values that stand in the parts."""
    return HEAD + "".join("\n" + "\n".join(_lines(part)) + "\n" for part in parts)


def _lines(part: Part) -> Iterator[str]:
    yield from (f"# {one_line(line)}" for line in part.comment.splitlines())
    for name, value in part.values.items():
        yield f"# {Settings.model_fields[name].description}"
        yield f"{name.upper()}={quoted(str(value))}"


def quoted(value: str) -> str:
    """A value as a `.env` has it: bare where it is plain, else in single quotes, in which nothing is expanded."""
    if _PLAIN.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
