"""Conversations: messages of every spelling as turns, and turns as one instruction or as a chat template takes them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fccl.data.examples import Conversation, Role, Turn
from fccl.data.rows.fields import Malformed, Row, in_unicode, is_empty, is_nothing, kind, optional, text
from fccl.data.rows.marks import MARKS, check_marks, is_marked_out

_ROLES = {
    **dict.fromkeys(("system", "developer"), "System"),
    **dict.fromkeys(("user", "human"), "User"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "function_call"), "Assistant"),
    **dict.fromkeys(("tool", "function", "observation", "ipython"), "Tool"),
}
_FIRST = ("System", "Tools")  # turns that stand before all others, in this order
CALL = "Tool call: "
SYSTEM_COLUMNS = ("system", "system_prompt")
TOOLS_COLUMNS = ("tools", "functions")
HISTORY = "history"
CONTEXT_COLUMNS = (*SYSTEM_COLUMNS, *TOOLS_COLUMNS, HISTORY)
_CALL_KEYS = ("tool_calls", "function_call")
_SPOKEN = re.compile(r"(?:\A|\n\n)(Human|User|Assistant): ?")


class SpokenTurn(NamedTuple):
    """One turn: the label of its speaker, its text, and whether it may be learnt."""

    who: str
    text: str
    learnt: bool = True


Turns = tuple[SpokenTurn, ...]  # oldest first
_CHAT_ROLES: Mapping[str, Role] = {"System": "system", "User": "user", "Assistant": "assistant", "Tool": "tool"}


class Asked(NamedTuple):
    """All that stands before an answer: as one text, and as turns where it is more than one turn of the user."""

    instruction: str
    turns: Conversation = ()


def asked_of(row: Row, turns: Turns) -> Asked:
    """The prompt of a row: the turns of its answer's conversation, after the row's own system, tools and history."""
    every = (*_context(row), *turns)
    return Asked(render(every), chat_turns(every))


def render(turns: Turns) -> str:
    """A conversation as one instruction: a single turn is itself; several get role labels, the system's turn first."""
    turns = tuple(dict.fromkeys(turn for turn in turns if turn.who in _FIRST and turn.text)) + _rest(turns)
    if not turns or turns[-1].who not in ("User", "Tool"):
        raise Malformed("the conversation before the answer must end with the user's turn")
    if not turns[-1].text:
        raise Malformed("the user's last turn is empty")
    if len(turns) == 1:
        return turns[0].text
    return "\n\n".join(f"{said.who}: {said.text}" for said in sorted(turns, key=_place))


def chat_turns(turns: Turns) -> Conversation:
    """A conversation as a chat template takes it, one system turn at most and first; empty for one turn of the user.

    An empty system turn stays: a template may write a system turn of its own where there is none.
    """
    firsts = sorted((turn for turn in turns if turn.who in _FIRST), key=_place)
    spoken = tuple(Turn(_CHAT_ROLES[who], text, learnt) for who, text, learnt in _rest(turns))
    if not firsts:
        return spoken if len(spoken) > 1 else ()
    texts = [said.text if said.who == "System" else f"{said.who}: {said.text}" for said in dict.fromkeys(firsts)]
    return (Turn("system", "\n\n".join(text for text in texts if text)), *spoken)


def _rest(turns: Turns) -> Turns:
    return tuple(turn for turn in turns if turn.who not in _FIRST)


def answer_of(row: Row, column: str) -> tuple[Turns, str]:
    """The turns before the last assistant turn, and its text. A text, or one message, is an answer without turns before
    it.

    Raises `Malformed`, and `MarkedOut` when the answer is marked as not to be learnt.
    """
    value = row[column]
    if isinstance(value, str) or is_nothing(value):
        return (), text(row, column)
    if isinstance(value, Mapping):
        check_marks(value)
        return (), _turn(value, column).text
    return last_answer(value, column)


def last_answer(messages: Any, column: str) -> tuple[Turns, str]:
    """The turns before the last one of a list of messages, and its text. Raises as `answer_of`."""
    turns = turns_of(messages, column)
    if turns[-1].who != "Assistant":
        raise Malformed(f"{column!r} must end with the assistant's turn, found {turns[-1].who}")
    check_marks(messages[-1])
    return turns[:-1], turns[-1].text


def turns_of(value: Any, column: str) -> Turns:
    """A list of messages as turns. Raises `Malformed`."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise Malformed(
            f"{column!r} must be a list of messages, found {kind(value) if value or value is None else 'nothing in it'}"
        )
    return tuple(_turn(message, column) for message in value)


def spoken_turns(said: str) -> Turns | None:
    """The turns of a text with the names of its speakers (`Human: …`, an empty line, `Assistant: …`), None for any
    other text.
    """
    parts = _SPOKEN.split(said.strip())
    if len(parts) < 3 or parts[0].strip():
        return None
    return tuple(
        SpokenTurn(_ROLES[role.lower()], part.strip()) for role, part in zip(parts[1::2], parts[2::2], strict=True)
    )


def unread_keys(messages: Any) -> list[str]:
    """The keys of messages that hold something and are not read."""
    found = [messages] if isinstance(messages, Mapping) else messages if isinstance(messages, list | tuple) else []
    read = {"role", "content", "from", "value", *_CALL_KEYS, *MARKS}
    speaking = (
        message for message in found if isinstance(message, Mapping) and ("role" in message or "from" in message)
    )
    return [
        str(key) for message in speaking for key, value in message.items() if key not in read and not is_empty(value)
    ]


def _context(row: Row) -> Turns:
    systems = tuple(SpokenTurn("System", found) for column in SYSTEM_COLUMNS if (found := optional(row, column)))
    tools = tuple(
        SpokenTurn("Tools", _as_json(row[column], column))
        for column in TOOLS_COLUMNS
        if not _is_nothing_written(row.get(column))
    )
    return (*systems, *tools, *_history(row))


def _history(row: Row) -> Turns:
    """Earlier exchanges: pairs of a question and its answer, or messages."""
    history = row.get(HISTORY)
    if is_empty(history):
        return ()
    if not isinstance(history, Sequence) or isinstance(history, str):
        raise Malformed(f"{HISTORY!r} must be a list of exchanges, found {kind(history)}")
    if all(isinstance(exchange, Mapping) for exchange in history):
        return turns_of(history, HISTORY)
    return tuple(turn for exchange in history for turn in _exchange(exchange))


def _exchange(exchange: Any) -> Turns:
    if not isinstance(exchange, Sequence) or len(exchange) != 2 or not all(isinstance(said, str) for said in exchange):
        raise Malformed(f"{HISTORY!r} must hold pairs of a question and its answer")
    question, answer = (in_unicode(said, HISTORY).strip() for said in exchange)
    return SpokenTurn("User", question), SpokenTurn("Assistant", answer)


def _turn(message: Any, column: str) -> SpokenTurn:
    if not isinstance(message, Mapping):
        raise Malformed(f"{column!r}: a message must be an object, found {kind(message)}")
    role_key, text_key = ("from", "value") if "from" in message else ("role", "content")
    role = message.get(role_key)
    if not isinstance(role, str) or role.lower() not in _ROLES:
        raise Malformed(f"{column!r}: a message's role must be one of {', '.join(_ROLES)}, found {role!r}")
    calls = [f"{CALL}{_as_json(call, column)}" for key in _CALL_KEYS for call in _calls(message.get(key))]
    if text_key not in message and not calls:
        raise Malformed(f"{column!r}: a message has no {text_key!r}")
    said = _content(message.get(text_key), text_key)
    if role.lower() == "function_call":
        said = f"{CALL}{said}"
    whole = "\n".join(part for part in (said, *calls) if part)
    return SpokenTurn(_ROLES[role.lower()], whole, not is_marked_out(message))


def _content(value: Any, key: str) -> str:
    """A message's text; a list of parts is joined when all of them are text."""
    if not isinstance(value, list | tuple):
        return text({key: value}, key)
    for part in value:
        if not isinstance(part, Mapping) or part.get("type", "text") != "text":
            found = part.get("type") if isinstance(part, Mapping) else kind(part)
            raise Malformed(f"{key!r} has a part that is not text ({found}), and only text can be learnt")
    return "\n".join(text(part, "text") for part in value)


def _calls(value: Any) -> list[Any]:
    """The tool calls of a message, each as it was called: its name and its arguments."""
    calls = value if isinstance(value, list | tuple) else [] if is_empty(value) else [value]
    return [
        call["function"] if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping) else call
        for call in calls
    ]


def _is_nothing_written(value: Any) -> bool:
    return is_empty(value) or (isinstance(value, str) and value.strip() in ("[]", "{}"))


def _as_json(value: Any, column: str) -> str:
    """Tools and calls as the JSON that they are, on one line; a text is taken as it stands."""
    try:
        return in_unicode(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), column).strip()
    except TypeError:
        raise Malformed(f"{column!r} must be text or JSON, found {kind(value)}") from None


def _place(turn: SpokenTurn) -> int:
    return _FIRST.index(turn.who) if turn.who in _FIRST else len(_FIRST)
