"""Rows of token ids: a prompt with its response, which of its tokens count, and how it is cut to the context.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Encoded:
    """One prompt with one response.

    `ids[prompt_length:]` is the response; in the plain form the end-of-text token closes it unless it was cut.
    `learnt` are the places of the tokens that count in the loss, where these are not just the response: of a
    conversation of which every assistant turn is learnt. None is 0: nothing predicts the first token."""

    ids: tuple[int, ...]
    prompt_length: int
    truncated: bool
    learnt: tuple[int, ...] | None = None

    @property
    def places(self) -> Sequence[int]:
        """The places of the tokens that count, in order."""
        return range(self.prompt_length, len(self.ids)) if self.learnt is None else self.learnt

    @property
    def response_length(self) -> int:
        """The number of tokens that count, the one that ends the response among them."""
        return len(self.places)


Responses = tuple[Encoded, ...]  # of one prompt: one response of an instruction; of a pair chosen, then rejected


@dataclass(frozen=True)
class Batch:
    """Padded rows: `input_ids` (B, T) int64, `response_mask` (B, T) bool, true where a token counts in the loss.

    Two rows of three and two prompt tokens, with two and one response tokens and 9 as end-of-text and padding:

        input_ids      [[5, 6, 7, 1, 9], [5, 6, 9, 9, 9]]
        response_mask  [[0, 0, 0, 1, 1], [0, 0, 1, 0, 0]]
    """

    input_ids: Tensor
    response_mask: Tensor


def fit(prompt: Sequence[int], responses: Sequence[Sequence[int]], max_length: int) -> list[Encoded]:
    """Join one prompt with each response in at most `max_length` tokens.

    A prompt that is too long loses its beginning, down to a quarter of the context. Only then does a response lose its
    end, and the end-of-text token with it: the text does not end there. The prompt is cut alike for all responses.
    """
    least_prompt = min(len(prompt), max_length // 4)
    longest = min(max(len(response) for response in responses), max_length - least_prompt)
    kept_prompt = prompt[max(0, len(prompt) - (max_length - longest)) :]
    room = max_length - len(kept_prompt)
    return [
        Encoded(
            ids=(*kept_prompt, *response[:room]),
            prompt_length=len(kept_prompt),
            truncated=len(kept_prompt) < len(prompt) or room < len(response),
        )
        for response in responses
    ]
