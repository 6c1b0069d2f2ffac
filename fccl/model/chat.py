"""Conversations through a chat template: token ids, and which of them are learnt.

A conversation is rendered and tokenised as a whole, as transformers does it; the template writes the beginning-of-text
token, if any. The prompt is the rendering that asks for an answer. The response is what the whole has beyond it, so the
end of the turn is learnt, and the header before the answer is not.

Where every assistant turn is learnt, the template's own marks (`{% generation %}`) say which tokens these are. Without
marks it is each turn beyond the rendering that asks for it. A template under which a longer conversation is no longer
text of a shorter one has no such parts, and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from transformers import PreTrainedTokenizerBase

from fccl.data.examples import Conversation, Turn
from fccl.errors import ModelError
from fccl.model.chat_template import ChatTemplate, Rendering
from fccl.model.rendered_text import RenderedText
from fccl.model.rows import Encoded, fit
from fccl.specs import LearnTurns, TextForm

_TRIAL = (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"))
_TRIAL_LENGTH = 1 << 20  # tokens: no limit

Span = tuple[int, int]  # first character, and the one behind the last


class Chat:
    """A tokenizer with its chat template. Raises `ModelError` where it has none or does not say where tokens stand."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, learn: LearnTurns = "last") -> None:
        self.template, self.reader, self.learn = ChatTemplate(tokenizer), RenderedText(tokenizer), learn

    def prompt_ids(self, asked: Conversation) -> list[int]:
        """The token ids up to where the answer begins. Raises `ModelError` when it cannot be rendered."""
        return self.reader.read(self._render(asked, ask=True).text).ids

    def rows(self, asked: Conversation, answers: Sequence[str], max_length: int) -> list[Encoded]:
        """The prompt with each answer; all have the same prompt tokens. Raises `ModelError`."""
        prompt, responses = self._parted(asked, answers)
        return fit(prompt, responses, max_length)

    def row(self, asked: Conversation, answer: str, max_length: int) -> Encoded:
        """One conversation with all that is learnt of it. Raises `ModelError`."""
        prompt, responses = self._parted(asked, [answer])
        (row,) = fit(prompt, responses, max_length)
        if self.learn == "last":
            return row
        cut = len(prompt) - row.prompt_length
        places = [place - cut for place in self._learnt((*asked, Turn("assistant", answer)))]
        learnt = tuple(place for place in places if 0 < place < len(row.ids))
        return row if learnt == tuple(row.places) else replace(row, learnt=learnt)

    def require_usable(self) -> None:
        """Raises `ModelError` when the template cannot write, or mask, a conversation of two answers."""
        self.row(_TRIAL, "d", _TRIAL_LENGTH)

    def end_of_turn(self) -> int | None:
        """The control token that ends an answer; None where the template writes none."""
        _, (response,) = self._parted(_TRIAL[:1], ["b"])
        controls = set(self.reader.commands.values())
        return next((number for number in reversed(response) if number in controls), None)

    def _parted(self, asked: Conversation, answers: Sequence[str]) -> tuple[list[int], list[list[int]]]:
        """The tokens that all conversations begin with, at most the prompt's, and what each has beyond them."""
        prompt = self._render(asked, ask=True).text
        wholes = [self._render((*asked, Turn("assistant", answer))).text for answer in answers]
        for whole in wholes:
            self._require_beginning(prompt, whole)
        start, rows = self.reader.read(prompt).ids, [self.reader.read(whole).ids for whole in wholes]
        # A token may reach over the border, where the answer's first letters join the header's last: it is response.
        shared = min(common_length(start, row) for row in rows)
        return start[:shared], [row[shared:] for row in rows]

    def _learnt(self, turns: Conversation) -> list[int]:
        """The places of the tokens of all assistant turns that may be learnt."""
        whole = self._render(turns)
        spans = self._marked(turns, whole) if self.template.marks_answers else self._beyond(turns, whole.text)
        read = self.reader.read(whole.text, list(chain(*spans)))
        borders = list(zip(read.borders[::2], read.borders[1::2], strict=True))
        return [
            place
            for place, (first, behind) in enumerate(read.offsets)
            if any(first < end and behind > start for start, end in borders)
        ]

    def _marked(self, turns: Conversation, whole: Rendering) -> list[Span]:
        """The parts that the template marks as generated, without the turns that are not to be learnt."""
        answered = [turn for turn in turns if turn.role == "assistant"]
        if all(turn.learnt for turn in answered):
            return list(whole.generated)
        if len(whole.generated) != len(answered):
            raise ModelError(
                f"{self.template.name} does not mark each answer once, so none can be left out",
                hint="use LEARN_TURNS=last",
            )
        return [span for span, turn in zip(whole.generated, answered, strict=True) if turn.learnt]

    def _beyond(self, turns: Conversation, whole: str) -> list[Span]:
        """Each assistant turn beyond the rendering that asks for it."""
        spans = []
        for place, turn in enumerate(turns):
            if turn.role == "assistant" and turn.learnt:
                before = self._render(turns[:place], ask=True).text
                behind = self._render(turns[: place + 1]).text
                self._require_beginning(before, behind)
                self._require_beginning(behind, whole)
                spans.append((len(before), len(behind)))
        return spans

    def _render(self, turns: Conversation, ask: bool = False) -> Rendering:
        inert = tuple(replace(turn, content=self.reader.inert(turn.content)) for turn in turns)
        return self.template.render(inert, ask)

    def _require_beginning(self, part: str, whole: str) -> None:
        if not whole.startswith(part):
            raise ModelError(
                f"{self.template.name} does not keep prefixes: it writes a turn otherwise once the conversation goes "
                "on, so what is to be learnt cannot be told",
                hint="use PROMPT_FORMAT=plain, or for LEARN_TURNS=all a template with {% generation %} marks",
            )


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """The number of tokens that both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))


def end_ids(tokenizer: PreTrainedTokenizerBase, text: TextForm) -> tuple[int, ...]:
    """The tokens at which a response ends: end-of-text, and in a chat the end of the assistant's turn."""
    ends = [int(tokenizer.eos_token_id)]
    turn = Chat(tokenizer).end_of_turn() if text.prompt == "chat" else None
    return tuple(dict.fromkeys(ends if turn is None else [*ends, turn]))
