"""Rows with a preferred and a dispreferred response, as `PreferencePair`."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fccl.data.examples import PreferencePair
from fccl.data.rows.fields import Malformed, Row, in_unicode, is_nothing, kind, optional, text
from fccl.data.rows.prompts import ASKS, INPUT_COLUMNS, instruction_turns, own_asked, prompt_column, prompt_turns
from fccl.data.rows.turns import Asked, SpokenTurn, Turns, answer_of, asked_of, spoken_turns

FALSE_TEN, FALSE_TEN_FINE = 10.0, 2.0  # a rating of 10 with such a fine-grained score or less was 1

Rated = list[tuple[float, str]]  # (rating, response)


def own(row: Row) -> PreferencePair | None:
    """A line of the project's own shards."""
    return _pair(own_asked(row), text(row, "preferred"), text(row, "dispreferred"), flaw=optional(row, "flaw"))


def rated(row: Row) -> PreferencePair | None:
    """UltraFeedback (Cui et al. 2023): the best-rated completion against the lowest-rated one.

    The lowest, since the ratings are one judge's and noisy: neighbours in rank are often the wrong way round, the
    extremes seldom are. The first one in the row wins a tie at the top and at the bottom. When all ratings are equal
    there is no pair.
    """
    usable, _ = _ratings(row)
    asked = asked_of(row, instruction_turns(row))
    if not usable:
        return None
    best, worst = max(usable, key=lambda item: item[0]), min(usable, key=lambda item: item[0])
    return _pair(asked, best[1], worst[1]) if best[0] > worst[0] else None


def passed_over(row: Row) -> Counter[str]:
    """The number of answers of a rated row that are of no use, by the field of the report that counts them."""
    return _ratings(row)[1]


def binarised(row: Row) -> PreferencePair | None:
    """`chosen` and `rejected` with their prompt.

    Turns that the two lists hold before their answers count as the prompt. Two texts may hold their prompt themselves,
    as in HH-RLHF.
    """
    before, preferred, dispreferred = _spoken(row) or _answers(row)
    return _pair(asked_of(row, before or prompt_turns(row)), preferred, dispreferred)


def prompt_columns(row: Row) -> tuple[str, ...]:
    """The columns that the prompt of such a row is read from."""
    column = prompt_column(row)
    return (column, *INPUT_COLUMNS) if column in ("instruction", "question") else (column or "prompt",)


def _answers(row: Row) -> tuple[Turns, str, str]:
    before, preferred = answer_of(row, "chosen")
    other, dispreferred = answer_of(row, "rejected")
    if before != other:
        raise Malformed("'chosen' and 'rejected' answer different conversations")
    return before, preferred, dispreferred


def _spoken(row: Row) -> tuple[Turns, str, str] | None:
    """The prompt and the answers of two texts that begin with the same conversation: all up to the last `Assistant:`
    that both share.

    None when they do not. An answer after which somebody speaks again is empty: the two conversations differ in more
    than an answer.
    """
    if not (isinstance(row["chosen"], str) and isinstance(row["rejected"], str)):
        return None
    texts = [text(row, column) for column in ("chosen", "rejected")]
    prompt = prompt_column(row)
    shared = os.path.commonprefix(texts)  # noqa: RUF071  # of characters, whatever they are
    if prompt is not None and not (
        isinstance(row[prompt], str) and row[prompt].strip().endswith(ASKS) and shared.startswith(row[prompt].strip())
    ):
        return None
    end = shared.rfind(ASKS)
    turns = spoken_turns(shared[:end]) if end > 0 else None
    if turns is None:
        return None
    preferred, dispreferred = (_only_answer(said[end + len(ASKS) :]) for said in texts)
    return turns, preferred, dispreferred


def _only_answer(said: str) -> str:
    return "" if spoken_turns(f"Assistant:{said}") != (SpokenTurn("Assistant", said.strip()),) else said.strip()


def _ratings(row: Row) -> tuple[Rated, Counter[str]]:
    """The answers of a row that have a text and a rating, and how many have not."""
    completions = row["completions"]
    if is_nothing(completions):
        return [], Counter()
    if not isinstance(completions, Sequence) or isinstance(completions, str):
        raise Malformed(f"'completions' must be a list, found {kind(completions)}")
    _refuse_other_items(completions)
    if completions and not any(
        {"response", "overall_score"} <= item.keys() for item in completions if isinstance(item, Mapping)
    ):
        raise Malformed("no completion has a 'response' and an 'overall_score'")
    found = [_rating(item) for item in completions]
    usable = [item for item in found if isinstance(item, tuple)]
    return usable, Counter(item for item in found if isinstance(item, str))


def _refuse_other_items(completions: Sequence[Any]) -> None:
    for item in completions:
        if not is_nothing(item) and not isinstance(item, Mapping):
            raise Malformed(f"a completion must be an object, found {kind(item)}")


def _rating(completion: Row | None) -> tuple[float, str] | str:
    """(rating, response), or the field of the report that counts an answer of no use."""
    if completion is None or is_nothing(completion):
        return "answers_passed_over"
    score, response = _number(completion.get("overall_score")), completion.get("response")
    if score is None or not isinstance(response, str) or not response.strip():
        return "answers_passed_over"
    fine = _number(completion.get("fine-grained_score"))
    if score == FALSE_TEN and fine is not None and fine <= FALSE_TEN_FINE:
        return "false_tens"
    return score, in_unicode(response, "response").strip()


def _number(value: Any) -> float | None:
    """A finite number, also one that is written as text."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _pair(asked: Asked, preferred: str, dispreferred: str, flaw: str = "") -> PreferencePair | None:
    if not preferred or not dispreferred or preferred == dispreferred:
        return None
    return PreferencePair(asked.instruction, preferred, dispreferred, flaw=flaw, asked=asked.turns)
