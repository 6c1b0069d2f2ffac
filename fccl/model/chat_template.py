"""A tokenizer's chat template: found, known by its hash, and rendered by transformers.

A template may write a date. Here its clock stands still, so that the same conversation is the same text on every day.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from fccl.data.examples import Conversation
from fccl.errors import ModelError
from fccl.model.base_model import first_line

# 26 July 2024, a Friday: the date that Llama's templates write where they have no clock.
_NOW = {
    "%d": "26",
    "%b": "Jul",
    "%B": "July",
    "%m": "07",
    "%Y": "2024",
    "%y": "24",
    "%A": "Friday",
    "%a": "Fri",
    "%H": "00",
    "%M": "00",
    "%S": "00",
}
_FORMATTED = "".join(f" | replace('{name}', '{value}')" for name, value in _NOW.items())
_CLOCK = f"{{%- macro strftime_now(format) -%}}{{{{- format{_FORMATTED} -}}}}{{%- endmacro %}}\n"
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PLAIN = "use PROMPT_FORMAT=plain"


class Rendering(NamedTuple):
    """A conversation as the template writes it. `generated` are the parts that it marks as generated, as characters."""

    text: str
    generated: tuple[tuple[int, int], ...] = ()


class ChatTemplate:
    """The chat template of a tokenizer. Raises `ModelError` when there is none."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.name = f"the chat template of {tokenizer.name_or_path}"
        self._source = template_of(tokenizer)
        if not self._source:
            raise ModelError(
                f"PROMPT_FORMAT=chat: {tokenizer.name_or_path} has no chat template",
                hint=f"{_PLAIN}, or save the tokenizer with a chat template",
            )
        self._written = _CLOCK + self._source if "strftime_now" in self._source else self._source
        self._names = tokenizer.special_tokens_map

    @property
    def marks_answers(self) -> bool:
        """Whether it says which parts of a conversation the assistant generates."""
        return bool(_GENERATION.search(self._source))

    def render(self, turns: Conversation, ask: bool = False) -> Rendering:
        """The conversation as text; with `ask`, up to where the assistant's next answer begins.

        Raises `ModelError` when the template refuses it or is broken.
        """
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        marks = self.marks_answers and not ask
        try:
            found = cast(Callable[..., Any], render_jinja_template)(
                [messages],
                chat_template=self._written,
                return_assistant_tokens_mask=marks,
                add_generation_prompt=ask,
                **self._names,
            )
        except Exception as error:  # a template is a program: whatever it raises
            roles = ", ".join(turn.role for turn in turns)
            raise ModelError(
                f"{self.name} cannot be rendered for the turns {roles}: {first_line(error)}",
                hint=f"{_PLAIN}, or leave out of the data what the template does not take",
            ) from error
        (text,), spans = found
        return Rendering(text, tuple(spans[0]) if marks else ())


def template_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """The source of the tokenizer's chat template; empty when it has none.

    Raises `ModelError` when it has several and none is the default.
    """
    if not tokenizer.chat_template:
        return ""
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise ModelError(
            f"{tokenizer.name_or_path} has several chat templates and no default one",
            hint=f"{_PLAIN}, or save the tokenizer with one of them",
        ) from error


def template_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """The SHA-256 of the template's source; empty when there is none. Raises as `template_of`."""
    source = template_of(tokenizer)
    return hashlib.sha256(source.encode()).hexdigest() if source else ""
