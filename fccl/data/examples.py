"""The two kinds of example, the files they live in, and the prompt's plain form.

A shard's line is `{"instruction", "response"}` (SFT) or `{"instruction", "preferred", "dispreferred"}` (VA), with the
optional keys `topic`, `answer`, `flaw` and `asked`. A line that is none of these is a `BadRow` with its file and line
number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from fccl.errors import BadRow, DataError
from fccl.storage.files import storage_errors, write_text
from fccl.storage.reading import NotJson, json_value

_PART, _TEST = "part", "test"  # the mark of a row that a client keeps apart
PROMPT = "### Instruction:\n{instruction}\n\n### Response:"
Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True)
class Turn:
    """One message of a conversation. `learnt` is false for an assistant turn that its row marks as not to be learnt."""

    role: Role
    content: str
    learnt: bool = True

    def as_message(self) -> dict[str, Any]:
        """The turn as a message of a row of data."""
        return {"role": self.role, "content": self.content} | ({} if self.learnt else {"train": False})


Conversation = tuple[Turn, ...]  # oldest first


@dataclass(frozen=True)
class SftExample:
    """One instruction and the response to learn.

    `answer`: what an exact answer is judged by, where the data has one. `asked`: the turns before the response, where
    they are more than one turn of the user; `instruction` then has them as one text. `client`: whose it is, while data
    is dealt to the clients that it names; no file says it.
    """

    instruction: str
    response: str
    topic: str = ""
    answer: str = ""
    client: str = ""
    asked: Conversation = ()


@dataclass(frozen=True)
class PreferencePair:
    """One instruction with a preferred (chosen) and a dispreferred (rejected) response.

    `flaw` names what is wrong with it; `asked` and `client` are as in `SftExample`.
    """

    instruction: str
    preferred: str
    dispreferred: str
    topic: str = ""
    flaw: str = ""
    client: str = ""
    asked: Conversation = ()


Example = TypeVar("Example", SftExample, PreferencePair)
Prompt = str | SftExample | PreferencePair  # an instruction, or an example of which the prompt is meant
KIND: Mapping[str, type[SftExample] | type[PreferencePair]] = {"sft": SftExample, "va": PreferencePair}
_REQUIRED = {SftExample: ("instruction", "response"), PreferencePair: ("instruction", "preferred", "dispreferred")}
_OPTIONAL = {SftExample: ("topic", "answer"), PreferencePair: ("topic", "flaw")}
_ASKED = "asked"


def prompt_of(instruction: str) -> str:
    """The text that the model reads before it answers, in the plain form. The response follows after one space."""
    return PROMPT.format(instruction=instruction)


def instruction_of(prompt: Prompt) -> str:
    """The prompt as one text."""
    return prompt if isinstance(prompt, str) else prompt.instruction


def conversation_of(prompt: Prompt) -> Conversation:
    """The prompt as turns.

    >>> conversation_of(SftExample("Name a bird.", "A robin."))
    (Turn(role='user', content='Name a bird.', learnt=True),)
    """
    asked = () if isinstance(prompt, str) else prompt.asked
    return asked or (Turn("user", instruction_of(prompt)),)


def fields_of(example: SftExample | PreferencePair) -> dict[str, Any]:
    """The fields of an example that files have, in their order; `asked` only where there are such turns."""
    kind = type(example)
    fields = {field: getattr(example, field) for field in (*_REQUIRED[kind], *_OPTIONAL[kind])}
    return fields | ({_ASKED: [turn.as_message() for turn in example.asked]} if example.asked else {})


def parse_row(kind: type[Example], row: Any, source: str, line: int) -> Example:
    """A shard's row as an example. Raises `BadRow` when a field is missing, empty or not what it must be."""
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
    asked = _turns(row.get(_ASKED, []), source, line)
    return kind(**{field: row[field] for field in (*_REQUIRED[kind], *_OPTIONAL[kind]) if field in row}, asked=asked)


def _turns(messages: Any, source: str, line: int) -> Conversation:
    if not isinstance(messages, list) or not all(map(_is_turn, messages)):
        wanted = f"a list of objects with 'role' ({', '.join(ROLES)}) and 'content' (text)"
        raise BadRow(source, line, f"{_ASKED!r} must be {wanted}")
    return tuple(Turn(each["role"], each["content"], each.get("train", True)) for each in messages)


def _is_turn(message: Any) -> bool:
    if not isinstance(message, Mapping) or not isinstance(message.get("train", True), bool):
        return False
    return message.get("role") in ROLES and isinstance(message.get("content"), str)


def _names(fields: Iterable[Any]) -> str:
    return ", ".join(repr(str(field)) for field in fields) or "nothing"


def read_examples(path: Path, kind: type[Example]) -> list[Example]:
    """The examples of one file. Raises `DataError` when it is not there or empty, `BadRow` on a bad line."""
    if not (examples := [example for example, _ in _rows(path, kind)]):
        raise no_examples(path)
    return examples


def no_examples(path: Path) -> DataError:
    """The error of a file in which examples should be."""
    return DataError(f"{path} has no examples", hint="run `fccl prepare` again")


def read_parts(path: Path, kind: type[Example]) -> tuple[list[Example], list[Example]]:
    """The examples of a shard file that the client trains on, and those that it keeps apart; both may be empty."""
    rows = list(_rows(path, kind))
    parts = ([example for example, apart in rows if apart is wanted] for wanted in (False, True))
    train, test = parts
    return train, test


def _rows(path: Path, kind: type[Example]) -> list[tuple[Example, bool]]:
    """The examples of a file, each with whether it is marked as kept apart. Raises as `read_examples`."""
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
        examples.append((parse_row(kind, row, str(path), number), row.get(_PART) == _TEST))
    return examples


def write_examples(path: Path, examples: Sequence[Any], apart: Sequence[Any] = ()) -> None:
    """Write a shard, one JSON object a line, empty optional fields left out. All or nothing.

    The examples of `apart` follow, marked: the client keeps them for its own test.
    """
    rows = [*map(_row, examples), *(_row(example) | {_PART: _TEST} for example in apart)]
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _row(example: SftExample | PreferencePair) -> dict[str, str]:
    return {key: value for key, value in fields_of(example).items() if value}
