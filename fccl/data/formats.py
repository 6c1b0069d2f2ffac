"""The rows that users bring, in every accepted set of columns, as examples.

    SFT   instruction, response                 the project's own shards (optional: answer; `context` as in Dolly)
          instruction, output                   Alpaca (optional: input)
          prompt, completion
          messages / conversations              ends with the assistant's turn
    VA    instruction, preferred, dispreferred  the project's own shards (optional: flaw)
          instruction, completions              UltraFeedback: rated completions
          prompt, chosen, rejected              texts, or lists of messages; without prompt, the messages that both lists share
          conversations, chosen, rejected

A message is `{role, content}` or `{from, value}`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic

from fccl.data.examples import Example, PreferencePair, SftExample
from fccl.data.sources import Unreadable
from fccl.errors import BadRow, DataError
from fccl.specs import Phase

TOPIC_COLUMNS = ("topic", "category", "label")
REASONS_KEPT = 5
_ROLES = {
    "system": "System",
    **dict.fromkeys(("user", "human"), "User"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt"), "Assistant"),
    **dict.fromkeys(("tool", "function", "function_call", "observation"), "Tool"),
}

Turns = tuple[tuple[str, str], ...]  # (role label, text), oldest first
Row = Mapping[str, Any]


class _Malformed(ValueError):
    """What is wrong with a row; file and line are added where they are known."""


@dataclass(frozen=True)
class Format(Generic[Example]):
    """A set of columns, and how a row that has them becomes an example. None: well-formed, but nothing can be learnt from it."""

    columns: tuple[str, ...]
    convert: Callable[[Row], Example | None]
    without: str = ""  # a column that such a row does not have

    def fits(self, row: Row) -> bool:
        return all(column in row for column in self.columns) and (not self.without or self.without not in row)


@dataclass
class Parsed(Generic[Example]):
    """What came of the rows of one source."""

    examples: list[Example] = field(default_factory=list)
    rows: int = 0
    bad_rows: int = 0
    bad_row_reasons: list[str] = field(default_factory=list)  # the first few
    nothing_to_learn: int = 0  # an empty answer, equal ratings, twice the same answer
    columns: tuple[str, ...] = ()  # of the first row that has an accepted set of them

    def add(self, example: Example | None) -> None:
        if example is None:
            self.nothing_to_learn += 1
        else:
            self.examples.append(example)

    def leave_out(self, bad: BadRow) -> None:
        self.bad_rows += 1
        if len(self.bad_row_reasons) < REASONS_KEPT:
            self.bad_row_reasons.append(str(bad))


def parse_sft(rows: Iterable[tuple[int, Any]], source: str, topic_column: str = "", skip_bad_rows: bool = False) -> Parsed[SftExample]:
    """Instructions with one response. Raises `DataError` when no row has an accepted set of columns, `BadRow` on a malformed row."""
    return _parse(rows, SFT_FORMATS, "sft", source, topic_column, skip_bad_rows)


def parse_va(rows: Iterable[tuple[int, Any]], source: str, topic_column: str = "", skip_bad_rows: bool = False) -> Parsed[PreferencePair]:
    """Instructions with a preferred and a dispreferred response. Raises as `parse_sft`."""
    return _parse(rows, VA_FORMATS, "va", source, topic_column, skip_bad_rows)


def _parse(
    rows: Iterable[tuple[int, Any]], formats: Sequence[Format[Example]], phase: Phase, source: str, topic_column: str, skip_bad_rows: bool
) -> Parsed[Example]:
    parsed: Parsed[Example] = Parsed()
    stranger: Row = {}  # the first row whose columns say nothing, as long as no row's columns do
    for line, row in rows:
        parsed.rows += 1
        known = _format_of(row, formats)
        if known and not parsed.columns:
            parsed.columns = tuple(map(str, row))
        try:
            parsed.add(_convert(row, known, topic_column))
        except _Malformed as problem:
            if isinstance(row, Mapping) and not parsed.columns:
                stranger = stranger or row
            if not skip_bad_rows:
                raise (_unknown_columns(source, phase, stranger) if row is stranger else BadRow(source, line, str(problem))) from None
            parsed.leave_out(BadRow(source, line, str(problem)))
    if stranger and not parsed.columns:
        raise _unknown_columns(source, phase, stranger)
    if not parsed.examples:
        raise DataError(f"{source} holds no examples ({_tally(parsed)})", hint=f"accepted columns: {_accepted(formats)}")
    return parsed


def _tally(parsed: Parsed[Any]) -> str:
    if not parsed.rows:
        return "it has no rows"
    return f"{parsed.rows} rows, {parsed.bad_rows} of them malformed, {parsed.nothing_to_learn} with nothing to learn"


def _format_of(row: Any, formats: Sequence[Format[Example]]) -> Format[Example] | None:
    if not isinstance(row, Mapping):
        return None
    return next((known for known in formats if known.fits(row)), None)


def _accepted(formats: Sequence[Format[Any]]) -> str:
    return "; ".join("{" + ", ".join(known.columns) + "}" for known in formats)


def _unknown_columns(source: str, phase: Phase, row: Row) -> DataError:
    found = f"{source} has the columns {', '.join(map(str, row)) or '(none)'}"
    if phase == "va" and _format_of(row, SFT_FORMATS):
        return DataError(
            f"{found}: one response to each instruction, and preferences need a preferred and a dispreferred one",
            hint=f"accepted columns: {_accepted(VA_FORMATS)}; or VA_DATA=synthetic, which makes pairs from the SFT data",
        )
    if phase == "sft" and _format_of(row, VA_FORMATS):
        return DataError(
            f"{found}: preference pairs, and SFT needs instructions with one response",
            hint=f"give it as VA_DATA; accepted columns here: {_accepted(SFT_FORMATS)}",
        )
    return DataError(
        f"{found}, which is none of the accepted sets", hint=f"accepted columns: {_accepted(SFT_FORMATS if phase == 'sft' else VA_FORMATS)}"
    )


def _convert(row: Any, chosen: Format[Example] | None, topic_column: str) -> Example | None:
    if isinstance(row, Unreadable):
        raise _Malformed(row.what)
    if not isinstance(row, Mapping):
        raise _Malformed(f"expected an object, found {_kind(row)}")
    if chosen is None:
        raise _Malformed(f"has none of the accepted sets of columns (found: {', '.join(map(str, row)) or 'nothing'})")
    example = chosen.convert(row)
    return None if example is None else replace(example, topic=_topic(row, topic_column))


def _topic(row: Row, topic_column: str) -> str:
    """The row's label as text, "" when it has none."""
    for column in (topic_column,) if topic_column else TOPIC_COLUMNS:
        value = row.get(column)
        if isinstance(value, str | int | float) and str(value).strip():
            return " ".join(_unicode(str(value), column).split())
        if topic_column and value is not None and not isinstance(value, str):
            raise _Malformed(f"{column!r} must be a label, found {_kind(value)}")
    return ""


# One converter a format ------------------------------------------------------------------------------------------------


def _sft(instruction: str, response: str, **more: str) -> SftExample | None:
    return SftExample(instruction, response, **more) if response else None


def _pair(instruction: str, preferred: str, dispreferred: str, **more: str) -> PreferencePair | None:
    if not preferred or not dispreferred or preferred == dispreferred:
        return None
    return PreferencePair(instruction, preferred, dispreferred, **more)


def _own_sft(row: Row) -> SftExample | None:
    return _sft(_instruction(row), _text(row, "response"), answer=_optional(row, "answer"))


def _alpaca(row: Row) -> SftExample | None:
    return _sft(_instruction(row), _text(row, "output"))


def _completion(row: Row) -> SftExample | None:
    turns, response = _answer(row, "completion")
    return _sft(_render(turns or _prompt(row)), response)


def _messages(column: str) -> Callable[[Row], SftExample | None]:
    def convert(row: Row) -> SftExample | None:
        turns, response = _ended(_turns(row[column], column), column)
        return _sft(_render(turns), response)

    return convert


def _own_pair(row: Row) -> PreferencePair | None:
    return _pair(_instruction(row), _text(row, "preferred"), _text(row, "dispreferred"), flaw=_optional(row, "flaw"))


def _rated(row: Row) -> PreferencePair | None:
    """UltraFeedback (Cui et al. 2023): the best-rated completion against the lowest-rated one.

    The lowest, since the ratings are one judge's and noisy: neighbours in rank are often the wrong way round, the extremes seldom are.
    The first one in the row wins a tie at the top and at the bottom. When all ratings are equal there is no pair.
    """
    completions = row["completions"]
    if not isinstance(completions, Sequence) or isinstance(completions, str):
        raise _Malformed(f"'completions' must be a list, found {_kind(completions)}")
    rated = [(score, _text(item, "response")) for item in completions if (score := _score(item)) is not None]
    rated = [(score, response) for score, response in rated if response]
    instruction = _instruction(row)
    if completions and not rated:
        raise _Malformed("no completion has a response and a number as 'overall_score'")
    if not rated:
        return None
    best, worst = max(rated, key=lambda item: item[0]), min(rated, key=lambda item: item[0])
    return _pair(instruction, best[1], worst[1]) if best[0] > worst[0] else None


def _score(completion: Any) -> float | None:
    if not isinstance(completion, Mapping):
        raise _Malformed(f"a completion must be an object, found {_kind(completion)}")
    try:
        score = float(completion.get("overall_score"))  # type: ignore[arg-type]  # None and text are what the except is for
    except (TypeError, ValueError):
        return None
    return score if math.isfinite(score) else None


def _binarised(row: Row) -> PreferencePair | None:
    """`chosen` and `rejected` with their prompt. Turns that the two lists hold before their answers count as the prompt."""
    before, preferred = _answer(row, "chosen")
    other, dispreferred = _answer(row, "rejected")
    if before != other:
        raise _Malformed("'chosen' and 'rejected' answer different conversations")
    return _pair(_render(before or _prompt(row)), preferred, dispreferred)


# Parts of rows ---------------------------------------------------------------------------------------------------------


def _instruction(row: Row) -> str:
    """The instruction; what Alpaca calls its input and Dolly its context follows after an empty line."""
    instruction = _not_empty(row, "instruction")
    more = next((text for column in ("input", "context") if (text := _optional(row, column))), "")
    return f"{instruction}\n\n{more}" if more else instruction


def _prompt(row: Row) -> Turns:
    column = next((column for column in ("prompt", "conversations") if column in row), None)
    if column is None:
        raise _Malformed("has neither 'prompt' nor turns before the answers")
    return (("User", _not_empty(row, column)),) if isinstance(row[column], str) else _turns(row[column], column)


def _answer(row: Row, column: str) -> tuple[Turns, str]:
    """The turns before the last assistant turn, and its text. A text, or one message, is an answer without turns before it."""
    value = row[column]
    if isinstance(value, str):
        return (), _text(row, column)
    if isinstance(value, Mapping):
        return (), _turn(value, column)[1]
    return _ended(_turns(value, column), column)


def _ended(turns: Turns, column: str) -> tuple[Turns, str]:
    """The turns before the last one, and its text."""
    if turns[-1][0] != "Assistant":
        raise _Malformed(f"{column!r} must end with the assistant's turn, found {turns[-1][0]}")
    return turns[:-1], turns[-1][1]


def _turns(value: Any, column: str) -> Turns:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise _Malformed(f"{column!r} must be a list of messages, found {_kind(value) if value or value is None else 'nothing in it'}")
    return tuple(_turn(message, column) for message in value)


def _turn(message: Any, column: str) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise _Malformed(f"{column!r}: a message must be an object, found {_kind(message)}")
    role_key, text_key = ("from", "value") if "from" in message else ("role", "content")
    role = message.get(role_key)
    if not isinstance(role, str) or role.lower() not in _ROLES:
        raise _Malformed(f"{column!r}: a message's role must be one of {', '.join(_ROLES)}, found {role!r}")
    if text_key not in message:
        raise _Malformed(f"{column!r}: a message has no {text_key!r}")
    return _ROLES[role.lower()], _text(message, text_key)


def _render(turns: Turns) -> str:
    """A conversation as one instruction: a single turn is itself; several get role labels, the system's turn first."""
    turns = tuple(turn for turn in turns if turn[0] != "System" or turn[1])
    if not turns or turns[-1][0] not in ("User", "Tool"):
        raise _Malformed("the conversation before the answer must end with the user's turn")
    if not turns[-1][1]:
        raise _Malformed("the user's last turn is empty")
    if len(turns) == 1:
        return turns[0][1]
    return "\n\n".join(f"{label}: {text}" for label, text in sorted(turns, key=lambda turn: turn[0] != "System"))


def _not_empty(row: Row, column: str) -> str:
    text = _text(row, column)
    if not text:
        raise _Malformed(f"{column!r} is empty")
    return text


def _optional(row: Row, column: str) -> str:
    return "" if row.get(column) is None else _text(row, column)


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise _Malformed(f"{column!r} must be text, found {_kind(value)}" if column in row else f"has no {column!r}")
    return _unicode(value, column).strip()


def _unicode(text: str, column: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair; no UTF-8 file can hold it
        raise _Malformed(f"{column!r} holds half a surrogate pair, which is no character") from None
    return text


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


SFT_FORMATS: tuple[Format[SftExample], ...] = (
    Format(("instruction", "response"), _own_sft),
    Format(("instruction", "output"), _alpaca),
    Format(("prompt", "completion"), _completion),
    Format(("messages",), _messages("messages")),
    Format(("conversations",), _messages("conversations"), without="chosen"),
)
VA_FORMATS: tuple[Format[PreferencePair], ...] = (
    Format(("instruction", "preferred", "dispreferred"), _own_pair),
    Format(("instruction", "completions"), _rated),
    Format(("prompt", "chosen", "rejected"), _binarised),
    Format(("conversations", "chosen", "rejected"), _binarised),
    Format(("chosen", "rejected"), _binarised),
)
