"""Token ids of text that nobody here wrote: `<|endoftext|>` inside a text is thirteen characters, never the end of the
text.

The control tokens of a tokenizer are those that it calls special: end and beginning of text, padding, roles of a chat.
Text that spells one of them must not become one, or a row of data could end its own answer and begin a conversation of
its choice. The only control tokens in a row are therefore those that the encoder itself writes.

A tokenizer that is told to split special tokens looks for none in the text. That is enough where the vocabulary cannot
spell them (byte-level BPE). Vocabularies made from SentencePiece hold `</s>` as a piece like any other; for them a copy
of the tokenizer with its control tokens renamed reads the text again.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from fccl.errors import ModelError

Ids = list[int]

_ANY_TEXT = "a"


@dataclass(frozen=True)
class Renamed:
    """A tokenizer with its control tokens called what no text can foresee, by their own names. Their ids stay."""

    names: Mapping[str, str]
    backend: Tokenizer


_renamed: WeakKeyDictionary[PreTrainedTokenizerBase, Renamed] = WeakKeyDictionary()


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], special: bool = False) -> list[Ids]:
    """The token ids of each text, without a control token that the text spells. `special` adds what the tokenizer puts
    around a text.

    Raises `ModelError` when the tokenizer can read a text only as a control token.
    """
    if not texts:
        return []
    before, after = _around(tokenizer) if special else ([], [])
    spelling = _Spelling(tokenizer)
    rows = zip(texts, _plain(tokenizer, texts), strict=True)
    return [
        [*before, *(spelling.as_text(text) if spelling.is_control(row, text) else row), *after] for text, row in rows
    ]


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Every special token of the tokenizer with its id, those that were added included."""
    added = {token.content: number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))


def renamed(tokenizer: PreTrainedTokenizerBase) -> Renamed:
    """The tokenizer with its control tokens renamed; made once for the control tokens that it has now."""
    names, known = control_tokens(tokenizer).keys(), _renamed.get(tokenizer)
    if known is None or known.names.keys() != names:
        new = {name: f"{secrets.token_hex(16)}{number}" for number, name in enumerate(names)}
        known = _renamed[tokenizer] = Renamed(new, _with_tokens_renamed(tokenizer.backend_tokenizer, new))
    return known


def commands_of(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The control tokens that no text may become. "Unknown" is none: a word that the vocabulary lacks may become it."""
    others = (
        tokenizer.bos_token,
        tokenizer.eos_token,
        tokenizer.pad_token,
        tokenizer.sep_token,
        tokenizer.cls_token,
    )
    unknown = tokenizer.unk_token if tokenizer.unk_token not in others else None
    return {token: number for token, number in control_tokens(tokenizer).items() if token != unknown}


class _Spelling:
    """Tells a row with a control token in it, and reads its text once more without any."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.tokens = control_tokens(tokenizer)
        named = commands_of(tokenizer)
        self.unknown = next((token for token in self.tokens if token not in named), None)  # only its name must not
        self.commands = set(named.values())

    def is_control(self, row: Ids, text: str) -> bool:
        named = self.unknown is not None and self.unknown in text and self.tokens[self.unknown] in row
        return named or not self.commands.isdisjoint(row)

    def as_text(self, text: str) -> Ids:
        row = (
            renamed(self.tokenizer).backend.encode(text, add_special_tokens=False).ids
            if self.tokenizer.is_fast
            else self._in_pieces(text)
        )
        if self.commands.isdisjoint(row):
            return list(row)
        command = next(token for token, number in self.tokens.items() if number in self.commands and number in row)
        raise ModelError(
            f"the tokenizer reads a text as its control token {command!r}: {text[:40]!r}…",
            hint="leave this text out of the data, or use a model whose vocabulary can spell every text",
        )

    def _in_pieces(self, text: str) -> Ids:
        """Each control token's text, cut behind its first character, so that no piece spells it."""
        names = sorted(self.tokens, key=len, reverse=True)
        pieces = re.split(
            "|".join(f"(?<={re.escape(name[0])})(?={re.escape(name[1:])})" for name in names if len(name) > 1), text
        )
        return [number for row in _plain(self.tokenizer, [piece for piece in pieces if piece]) for number in row]


def _plain(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Ids]:
    rows: list[Ids] = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True, verbose=False)[
        "input_ids"
    ]
    return rows


def _around(tokenizer: PreTrainedTokenizerBase) -> tuple[Ids, Ids]:
    """The control tokens that the tokenizer puts before and after a text (Llama: one before; GPT-2: none)."""
    (alone,) = _plain(tokenizer, [_ANY_TEXT])
    (whole,) = tokenizer([_ANY_TEXT], add_special_tokens=True, verbose=False)["input_ids"]
    before = next((at for at in range(len(whole)) if whole[at : at + len(alone)] == alone), 0)
    return whole[:before], whole[before + len(alone) :]


def _with_tokens_renamed(backend: Tokenizer, new: Mapping[str, str]) -> Tokenizer:
    described = json.loads(backend.to_str())
    for token in described["added_tokens"]:
        token["content"] = new.get(token["content"], token["content"])
    model = described["model"]
    if model.get("unk_token"):
        model["unk_token"] = new.get(model["unk_token"], model["unk_token"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = {new.get(piece, piece): number for piece, number in model["vocab"].items()}
    else:  # Unigram: (piece, score), the id is the place
        model["vocab"] = [(new.get(piece, piece), score) for piece, score in model["vocab"]]
    if "merges" in model:
        model["merges"] = [pair for pair in map(_pair, model["merges"]) if not {*pair, "".join(pair)} & new.keys()]
    return Tokenizer.from_str(json.dumps(described))


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right
