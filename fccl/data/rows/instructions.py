"""Rows with one response to each instruction, as `SftExample`."""

from __future__ import annotations

from collections.abc import Callable

from fccl.data.examples import SftExample
from fccl.data.rows.fields import Row, optional, text
from fccl.data.rows.prompts import instruction_turns, own_asked, prompt_turns
from fccl.data.rows.turns import Asked, answer_of, asked_of, last_answer


def own(row: Row) -> SftExample | None:
    """A line of the project's own shards, or Dolly's."""
    return _example(own_asked(row), text(row, "response"), answer=optional(row, "answer"))


def alpaca(row: Row) -> SftExample | None:
    return _example(asked_of(row, instruction_turns(row)), text(row, "output"))


def completion(row: Row) -> SftExample | None:
    turns, response = answer_of(row, "completion")
    return _example(asked_of(row, turns or prompt_turns(row)), response)


def messages(column: str) -> Callable[[Row], SftExample | None]:
    """A conversation whose last turn is the answer."""

    def convert(row: Row) -> SftExample | None:
        turns, response = last_answer(row[column], column)
        return _example(asked_of(row, turns), response)

    return convert


def _example(asked: Asked, response: str, answer: str = "") -> SftExample | None:
    return SftExample(asked.instruction, response, answer=answer, asked=asked.turns) if response else None
