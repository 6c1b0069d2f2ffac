"""The prompt of an answer: an instruction with its input, a prompt, or the turns of a conversation."""

from __future__ import annotations

from typing import Any

from fccl.data.rows.fields import Malformed, Row, is_empty, is_nothing, not_empty, optional
from fccl.data.rows.turns import Asked, SpokenTurn, Turns, asked_of, chat_turns, spoken_turns, turns_of

PROMPT_COLUMNS = ("prompt", "conversations", "instruction", "question", "input")
INPUT_COLUMNS = ("input", "context")
ASKS = "\n\nAssistant:"
OWN_TURNS = "asked"  # of the project's own shards: the turns that `instruction` has as one text


def instruction_turns(row: Row, column: str = "instruction") -> Turns:
    """The instruction; what Alpaca calls its input and Dolly its context follows after an empty line."""
    instruction = not_empty(row, column)
    more = next((found for column in INPUT_COLUMNS if (found := optional(row, column))), "")
    return (SpokenTurn("User", f"{instruction}\n\n{more}" if more else instruction),)


def own_asked(row: Row) -> Asked:
    """The prompt of a line of the project's own shards."""
    asked = asked_of(row, instruction_turns(row))
    if is_empty(row.get(OWN_TURNS)):
        return asked
    return Asked(asked.instruction, chat_turns(turns_of(row[OWN_TURNS], OWN_TURNS)))


def prompt_column(row: Row) -> str | None:
    """The column that holds the prompt, if one does."""
    return next((column for column in PROMPT_COLUMNS if not _is_blank(row.get(column))), None)


def prompt_turns(row: Row) -> Turns:
    """The turns that stand in a column of their own. Raises `Malformed` when there is none."""
    column = prompt_column(row)
    if column is None:
        raise Malformed(f"has no prompt: none of {', '.join(PROMPT_COLUMNS)}, and no turns before the answers")
    if column in ("instruction", "question"):
        return instruction_turns(row, column)
    if not isinstance(row[column], str):
        return turns_of(row[column], column)
    return asked_turns(not_empty(row, column))


def asked_turns(prompt: str) -> Turns:
    """A prompt as turns: a text that ends in `Assistant:` holds a conversation, any other is the user's one turn."""
    turns = spoken_turns(prompt.removesuffix(ASKS)) if prompt.endswith(ASKS) else None
    return turns or (SpokenTurn("User", prompt),)


def _is_blank(value: Any) -> bool:
    return is_nothing(value) or (isinstance(value, str) and not value.strip())
