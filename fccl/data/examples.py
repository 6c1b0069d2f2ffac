"""The two kinds of example, the files they live in, and the prompt's form.

A shard's line is `{"instruction", "response"}` (SFT) or `{"instruction", "preferred", "dispreferred"}` (VA), with the
optional keys `topic`, `answer` and `flaw`. A line that is none of these is a `BadRow` with its file and line number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fccl.errors import BadRow, DataError
from fccl.storage.files import storage_errors, write_text
from fccl.storage.reading import NotJson, json_value

PROMPT = "### Instruction:\n{instruction}\n\n### Response:"


@dataclass(frozen=True)
class SftExample:
    """One instruction and the response to learn.

    `answer`: what an exact answer is judged by, where the data has one. `client`: whose it is, while data is dealt to
    the clients that it names; no file says it.
    """

    instruction: str
    response: str
    topic: str = ""
    answer: str = ""
    client: str = ""


@dataclass(frozen=True)
class PreferencePair:
    """One instruction with a preferred (chosen) and a dispreferred (rejected) response.

    `flaw` names what is wrong with it; `client` is as in `SftExample`.
    """

    instruction: str
    preferred: str
    dispreferred: str
    topic: str = ""
    flaw: str = ""
    client: str = ""


Example = TypeVar("Example", SftExample, PreferencePair)
KIND: Mapping[str, type[SftExample] | type[PreferencePair]] = {"sft": SftExample, "va": PreferencePair}
_REQUIRED = {SftExample: ("instruction", "response"), PreferencePair: ("instruction", "preferred", "dispreferred")}
_OPTIONAL = {SftExample: ("topic", "answer"), PreferencePair: ("topic", "flaw")}


def prompt_of(instruction: str) -> str:
    """The text that the model reads before it answers. The response follows after one space."""
    return PROMPT.format(instruction=instruction)


def fields_of(example: SftExample | PreferencePair) -> dict[str, str]:
    """The fields of an example that files have, in their order."""
    kind = type(example)
    return {field: getattr(example, field) for field in (*_REQUIRED[kind], *_OPTIONAL[kind])}


def parse_row(kind: type[Example], row: Any, source: str, line: int) -> Example:
    """A shard's row as an example. Raises `BadRow` when a field is missing, empty or not text."""
    if not isinstance(row, Mapping):
        raise BadRow(source, line, f"expected an object with {_names(_REQUIRED[kind])}, found {type(row).__name__}")
    for field in (*_REQUIRED[kind], *_OPTIONAL[kind]):
        required = field in _REQUIRED[kind]
        if field not in row:
            if required:
                raise BadRow(source, line, f"has no {field!r} (found: {_names(row)})")
            continue
        if not isinstance(row[field], str):
            raise BadRow(source, line, f"{field!r} must be text, found {type(row[field]).__name__}")
        if required and not row[field].strip():
            raise BadRow(source, line, f"{field!r} is empty")
    return kind(**{field: row[field] for field in (*_REQUIRED[kind], *_OPTIONAL[kind]) if field in row})


def _names(fields: Iterable[Any]) -> str:
    return ", ".join(repr(str(field)) for field in fields) or "nothing"


def read_examples(path: Path, kind: type[Example], may_be_empty: bool = False) -> list[Example]:
    """The examples of one shard file. Raises `DataError` when it is not there or empty, `BadRow` on a bad line."""
    if not path.is_file():
        raise DataError(f"{path} is not there", hint="run `fccl prepare` first, or name the folder with --data-dir")
    with storage_errors(path, "read"):
        lines = path.read_bytes().removesuffix(b"\n").split(b"\n")  # not splitlines: text may hold U+2028
    examples = []
    for number, line in enumerate(lines if lines != [b""] else [], start=1):
        try:
            row = json_value(line)
        except NotJson as error:
            raise BadRow(str(path), number, str(error)) from error
        examples.append(parse_row(kind, row, str(path), number))
    if not (examples or may_be_empty):
        raise DataError(f"{path} has no examples", hint="run `fccl prepare` again")
    return examples


def write_examples(path: Path, examples: Sequence[SftExample] | Sequence[PreferencePair]) -> None:
    """Write a shard, one JSON object a line, empty optional fields left out. All or nothing."""
    rows = ({key: value for key, value in fields_of(example).items() if value} for example in examples)
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
