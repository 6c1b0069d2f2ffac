"""The rows that users bring, in every accepted set of columns, as examples.

    SFT   instruction, response                 the project's own shards (optional: answer; `context` as in Dolly)
          instruction, output                   Alpaca (optional: input)
          prompt, completion                    with KTO's label: the desirable completions
          messages / conversations              ends with the assistant's turn
    VA    instruction, preferred, dispreferred  the project's own shards (optional: flaw)
          instruction, completions              UltraFeedback: rated completions prompt, chosen, rejected
          texts, or lists of messages; the prompt may also be called conversations, instruction
                                                (with input), question or input, or stand inside both texts or lists

A message is `{role, content}` or `{from, value}`. Beside any of these, `system`, `tools` and `history` are read into
the instruction, a label is the topic, and marks say what is not to be learnt. `docs/data.md` has all of it for users.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic

from fccl.data.examples import Example, PreferencePair, SftExample
from fccl.data.json_files import Unreadable
from fccl.data.rows import instructions, pairs
from fccl.data.rows.clients import ClientNames
from fccl.data.rows.fields import Malformed, MarkedOut, Row, is_empty, kind
from fccl.data.rows.labels import TOPIC_COLUMNS, Label, label_of, why_no_topics
from fccl.data.rows.marks import check_marks, is_mark
from fccl.data.rows.prompts import INPUT_COLUMNS, OWN_TURNS
from fccl.data.rows.turns import CONTEXT_COLUMNS, unread_keys
from fccl.display.words import nearest
from fccl.errors import BadRow, DataError
from fccl.specs import Phase

REASONS_KEPT = 5
_KTO_LABELS = frozenset({"0", "1", "0.0", "1.0"})


def _no_columns(row: Row) -> tuple[str, ...]:
    return ()


def _no_answers(row: Row) -> Counter[str]:
    return Counter()


@dataclass(frozen=True)
class Format(Generic[Example]):
    """A set of columns, and how a row that has them becomes an example.

    None: well-formed, but nothing can be learnt from it.
    """

    columns: tuple[str, ...]
    convert: Callable[[Row], Example | None]
    without: str = ""  # a column that such a row does not have
    reads: Callable[[Row], tuple[str, ...]] = _no_columns  # more columns, where a row has them
    left_out: Callable[[Row], Counter[str]] = (
        _no_answers  # answers of the row that are of no use, by the field that counts them
    )
    kto: bool = False  # a `label` of 0 and 1 alone is KTO's mark, not a topic

    def fits(self, row: Row) -> bool:
        return all(column in row for column in self.columns) and (not self.without or self.without not in row)


@dataclass
class Parsed(Generic[Example]):
    """The outcome of reading one source."""

    examples: list[Example] = field(default_factory=list)
    rows: int = 0
    bad_rows: int = 0
    bad_row_reasons: list[str] = field(default_factory=list)  # the first few
    nothing_to_learn: int = 0  # an empty answer, equal ratings, twice the same answer
    marked: int = 0  # rows that say of themselves that they are not to be learnt
    answers: Counter[str] = field(
        default_factory=Counter
    )  # of rated rows, left out: `answers_passed_over`, `false_tens`
    columns: tuple[str, ...] = ()  # of the first row that has an accepted set of them
    columns_not_used: list[str] = field(
        default_factory=list
    )  # that hold something, in the order in which they were met

    def leave_out(self, bad: BadRow) -> None:
        self.bad_rows += 1
        if len(self.bad_row_reasons) < REASONS_KEPT:
            self.bad_row_reasons.append(str(bad))


def parse_sft(
    rows: Iterable[tuple[int, Any]],
    source: str,
    topic_column: str = "",
    skip_bad_rows: bool = False,
    client_column: str = "",
) -> Parsed[SftExample]:
    """Instructions with one response.

    Raises `DataError` when no row has an accepted set of columns, `BadRow` on a malformed row.
    """
    return _parse(rows, "sft", source, _Reading(SFT_FORMATS, topic_column, client_column), skip_bad_rows)


def parse_va(
    rows: Iterable[tuple[int, Any]],
    source: str,
    topic_column: str = "",
    skip_bad_rows: bool = False,
    client_column: str = "",
) -> Parsed[PreferencePair]:
    """Instructions with a preferred and a dispreferred response. Raises as `parse_sft`."""
    return _parse(rows, "va", source, _Reading(VA_FORMATS, topic_column, client_column), skip_bad_rows)


def _parse(
    rows: Iterable[tuple[int, Any]], phase: Phase, source: str, reading: _Reading[Example], skip_bad_rows: bool
) -> Parsed[Example]:
    parsed = reading.parsed
    stranger: Row = {}  # the first row whose columns say nothing, as long as no row's columns do
    for line, row in rows:
        try:
            reading.read(row)
        except MarkedOut:
            parsed.marked += 1
        except Malformed as problem:
            if not parsed.columns:
                stranger = stranger or (row if isinstance(row, Mapping) else {})
                if isinstance(row, list) and not skip_bad_rows:
                    raise _nameless(source) from None
            if not skip_bad_rows:
                raise (
                    _unknown_columns(source, phase, stranger)
                    if row is stranger
                    else BadRow(source, line, str(problem), problem.hint)
                ) from None
            parsed.leave_out(BadRow(source, line, str(problem)))
    if stranger and not parsed.columns:
        raise _unknown_columns(source, phase, stranger)
    reading.finish()
    if not parsed.examples:
        known = "every row was left out; bring rows that have something to learn"
        raise DataError(
            f"{source} holds no examples ({_tally(parsed)})",
            hint=known if parsed.columns else f"accepted columns: {_accepted(reading.formats)}",
        )
    return parsed


class _Reading(Generic[Example]):
    """Row by row into examples; at the end, when all labels are known, what the topics are."""

    def __init__(self, formats: Sequence[Format[Example]], topic_column: str, client_column: str) -> None:
        self.formats: Sequence[Format[Example]] = formats
        self.topic_column = topic_column
        self._clients = ClientNames(client_column)
        self.parsed: Parsed[Example] = Parsed()
        self._labels: list[dict[str, Label]] = []  # of every example, by column
        self._kto = True  # whether every row has the columns of KTO
        self._unread: dict[str, None] = {}
        self._label_columns: dict[str, None] = {}  # columns that hold something and may be a label

    def read(self, row: Any) -> None:
        """Raises `Malformed` and `MarkedOut`; the row is counted either way."""
        parsed = self.parsed
        parsed.rows += 1
        known = _format_of(row, self.formats)
        if known and not parsed.columns:
            parsed.columns = tuple(map(str, row))
        known = _require_format(row, known)
        self._note_columns(row, known)
        check_marks(row)
        labels = {
            column: label for column in self._columns() if (label := label_of(row, column, bool(self.topic_column)))
        }
        client, example = self._clients.of(row), known.convert(row)
        parsed.answers += known.left_out(row)
        if example is None:
            parsed.nothing_to_learn += 1
            return
        self._kto = self._kto and known.kto
        parsed.examples.append(replace(example, client=client) if client else example)
        self._labels.append(labels)

    def finish(self) -> None:
        """Give every example its topic, leave out what KTO's labels say, and name the columns that were not used."""
        reasons = {column: self._why_no_topics(column) for column in self._label_columns}
        marks = self._kto_marks()
        no_topics = {column for column, reason in reasons.items() if reason} | ({"label"} if marks else set())
        usable = [column for column in self._columns() if column not in no_topics]
        topics: list[str] = [next((column for column in usable if column in mine), "") for mine in self._labels]
        rows = zip(self.parsed.examples, self._labels, topics, marks or [True] * len(topics), strict=True)
        self.parsed.examples = [
            replace(example, topic=mine[column].text) if column else example
            for example, mine, column, good in rows
            if good
        ]
        self.parsed.marked += marks.count(False)
        used = {*topics} | ({"label"} if marks else set())
        shown = {column: f"{column} ({reason})" for column, reason in reasons.items() if reason}
        self.parsed.columns_not_used = [shown.get(column, column) for column in self._unread if column not in used]

    def _why_no_topics(self, column: str) -> str:
        """ "" also for a column that the user named: who asks for these topics gets them."""
        return "" if self.topic_column else why_no_topics([mine[column] for mine in self._labels if column in mine])

    def _columns(self) -> tuple[str, ...]:
        return (self.topic_column,) if self.topic_column else TOPIC_COLUMNS

    def _note_columns(self, row: Row, known: Format[Example]) -> None:
        read = {*known.columns, *known.reads(row), *CONTEXT_COLUMNS, self._clients.column}
        for column, value in row.items():
            if column not in read and column not in self._unread and not is_empty(value) and not is_mark(row, column):
                self._unread[str(column)] = None
                if column in self._columns():
                    self._label_columns[str(column)] = None
            elif column in known.columns:
                self._unread |= dict.fromkeys(f"{column}.{key}" for key in unread_keys(value))

    def _kto_marks(self) -> list[bool]:
        """Whether each example is desirable, when all have KTO's label in numbers; nothing otherwise."""
        labels = [mine.get("label") for mine in self._labels]
        if (
            not self._kto
            or self.topic_column == "label"
            or not labels
            or not all(label and label.text in _KTO_LABELS for label in labels)
        ):
            return []
        return [bool(label and label.number) for label in labels]


def _tally(parsed: Parsed[Any]) -> str:
    if not parsed.rows:
        return "it has no rows"
    counts = {
        "marked as not to be learnt": parsed.marked,
        "answers without a text or a rating": parsed.answers["answers_passed_over"],
        "answers falsely rated 10": parsed.answers["false_tens"],
    }
    more = "".join(f", {count} {what}" for what, count in counts.items() if count)
    return (
        f"{parsed.rows} rows, {parsed.bad_rows} of them malformed, {parsed.nothing_to_learn} with nothing to "
        f"learn{more}"
    )


def _format_of(row: Any, formats: Sequence[Format[Example]]) -> Format[Example] | None:
    if not isinstance(row, Mapping):
        return None
    return next((known for known in formats if known.fits(row)), None)


def _require_format(row: Any, known: Format[Example] | None) -> Format[Example]:
    if isinstance(row, Unreadable):
        raise Malformed(row.what)
    if not isinstance(row, Mapping):
        raise Malformed(f"expected an object, found {kind(row)}")
    if known is None:
        raise Malformed(f"has none of the accepted sets of columns (found: {', '.join(map(str, row)) or 'nothing'})")
    return known


def _accepted(formats: Sequence[Format[Any]]) -> str:
    return "; ".join("{" + ", ".join(known.columns) + "}" for known in formats)


def _nameless(source: str) -> DataError:
    return DataError(
        f"{source} holds rows without the names of their columns (lists)",
        hint="save it with the names: with pandas, to_json(…, orient='records', lines=True)",
    )


def _unknown_columns(source: str, phase: Phase, row: Row) -> DataError:
    found = f"{source} has the columns {', '.join(map(str, row)) or '(none)'}"
    if phase == "va" and _format_of(row, SFT_FORMATS):
        return DataError(
            f"{found}: one response to each instruction, and preferences need a preferred and a dispreferred one",
            hint=f"accepted columns: {_accepted(VA_FORMATS)}; or VA_DATA=synthetic, which makes pairs from the SFT "
            "data",
        )
    if phase == "sft" and _format_of(row, VA_FORMATS):
        return DataError(
            f"{found}: preference pairs, and SFT needs instructions with one response",
            hint=f"give it as VA_DATA; accepted columns here: {_accepted(SFT_FORMATS)}",
        )
    formats: Sequence[Format[Any]] = SFT_FORMATS if phase == "sft" else VA_FORMATS
    return DataError(
        f"{found}, which is none of the accepted sets",
        hint=f"{_misspelt(row, formats)}accepted columns: {_accepted(formats)}",
    )


def _misspelt(row: Row, formats: Sequence[Format[Any]]) -> str:
    """A question for each column that looks like one of the accepted ones; empty where none does."""
    known = {column for each in formats for column in each.columns} - {*map(str, row)}
    strange = [str(column) for column in row if not any(column in each.columns for each in formats)]
    guesses = [(column, guess) for column in strange if (guess := nearest(column, known, cutoff=0.75))]
    return "".join(f"did you mean {guess} for {column}? " for column, guess in guesses)


def _inputs(*more: str) -> Callable[[Row], tuple[str, ...]]:
    return lambda row: (*INPUT_COLUMNS, *more)


def _binarised(*columns: str) -> Format[PreferencePair]:
    return Format((*columns, "chosen", "rejected"), pairs.binarised, reads=pairs.prompt_columns)


SFT_FORMATS: tuple[Format[SftExample], ...] = (
    Format(("instruction", "response"), instructions.own, reads=_inputs("answer", OWN_TURNS)),
    Format(("instruction", "output"), instructions.alpaca, reads=_inputs()),
    Format(("prompt", "completion"), instructions.completion, kto=True),
    Format(("messages",), instructions.messages("messages")),
    Format(("conversations",), instructions.messages("conversations"), without="chosen"),
)
VA_FORMATS: tuple[Format[PreferencePair], ...] = (
    Format(("instruction", "preferred", "dispreferred"), pairs.own, reads=_inputs("flaw", OWN_TURNS)),
    Format(("instruction", "completions"), pairs.rated, reads=_inputs(), left_out=pairs.passed_over),
    *(_binarised(column) for column in ("prompt", "conversations", "instruction", "question", "input")),
    _binarised(),
)
