"""Token ids of a conversation that a chat template has written: the template's control tokens are control tokens, and
those that a message spells are text.

A template writes both into one text. So before it does, every control token that a message spells is broken by a mark
(`inert`). What is whole in the rendering is then the template's, and what is broken is the message's.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from fccl.errors import ModelError
from fccl.model.tokens import commands_of, control_tokens, renamed


class ReadText(NamedTuple):
    """A rendering in tokens: their ids, their places (first and last character), and the borders asked for, as places
    in the same text.
    """

    ids: list[int]
    offsets: Sequence[tuple[int, int]]
    borders: Sequence[int]


class RenderedText:
    """Reads what a chat template has written. Raises `ModelError` for a tokenizer that cannot tell places in a text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise ModelError(
                f"PROMPT_FORMAT=chat: the tokenizer of {tokenizer.name_or_path} does not say where its tokens stand",
                hint="save it with a tokenizer.json, or use PROMPT_FORMAT=plain",
            )
        self.tokenizer, self.commands = tokenizer, commands_of(tokenizer)
        names = "|".join(map(re.escape, sorted(control_tokens(tokenizer), key=len, reverse=True)))
        self._mark = secrets.token_hex(16)
        self._begins = re.compile(f"(?=(?:{names}))(.)", re.DOTALL)
        self._names = re.compile(names)

    def inert(self, text: str) -> str:
        """A message for the template, no control token of it whole."""
        return self._begins.sub(lambda begin: begin[1] + self._mark, text)

    def read(self, rendering: str, borders: Sequence[int] = ()) -> ReadText:
        """The tokens of a rendering. Raises `ModelError` when the tokenizer can read it with other control tokens only.

        `borders` are places in the rendering that no control token and no mark reaches over.
        """
        wanted = sum(name in self.commands for name in self._names.findall(rendering))
        if self._mark not in rendering:
            found = self.tokenizer(
                rendering,
                add_special_tokens=False,
                split_special_tokens=False,
                return_offsets_mapping=True,
                verbose=False,
            )
            if self._controls(found["input_ids"]) == wanted:
                return ReadText(found["input_ids"], found["offset_mapping"], borders)
        encoding = renamed(self.tokenizer).backend.encode(self._told_apart(rendering), add_special_tokens=False)
        if self._controls(encoding.ids) != wanted:
            raise ModelError(
                f"the tokenizer of {self.tokenizer.name_or_path} makes a control token of a message's text",
                hint="leave this text out of the data, or use a model whose vocabulary can spell every text",
            )
        moved = [len(self._told_apart(rendering[:border])) for border in borders]
        return ReadText(list(encoding.ids), encoding.offsets, moved)

    def _controls(self, ids: Sequence[int]) -> int:
        known = set(self.commands.values())
        return sum(number in known for number in ids)

    def _told_apart(self, rendering: str) -> str:
        """The template's control tokens under their new names, the messages as they are."""
        new = renamed(self.tokenizer).names
        return self._names.sub(lambda name: new[name[0]], rendering).replace(self._mark, "")
