"""Text to token ids: prompt and response joined, cut to the context, padded, with the mask of what counts.

Shapes: B rows, T tokens. Rows are padded on the right, where a causal model's real tokens never look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from fccl.data.examples import PreferencePair, SftExample, prompt_of
from fccl.model.tokens import token_ids
from fccl.specs import Phase


@dataclass(frozen=True)
class Encoded:
    """One prompt with one response.

    `ids[prompt_length:]` is the response, closed by the end-of-text token unless it was cut.
    """

    ids: tuple[int, ...]
    prompt_length: int
    truncated: bool

    @property
    def response_length(self) -> int:
        """Response tokens, the end-of-text token among them."""
        return len(self.ids) - self.prompt_length


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


def prompt_ids(tokenizer: PreTrainedTokenizerBase, instructions: Sequence[str]) -> list[list[int]]:
    """The token ids of each instruction's prompt; an end-of-text token that the tokenizer appends by itself is taken
    off.
    """
    rows = token_ids(tokenizer, [prompt_of(instruction) for instruction in instructions], special=True)
    return [row[:-1] if row and row[-1] == tokenizer.eos_token_id else row for row in rows]


def encode(
    tokenizer: PreTrainedTokenizerBase, phase: Phase, examples: Sequence[SftExample | PreferencePair], max_length: int
) -> list[Responses]:
    """The examples of a phase in tokens, at most `max_length` a response with its prompt."""
    return list(_ENCODERS[phase](tokenizer, examples, max_length))


def encode_sft(tokenizer: PreTrainedTokenizerBase, examples: Sequence[SftExample], max_length: int) -> list[Encoded]:
    """Every example as one row of at most `max_length` tokens."""
    prompts = prompt_ids(tokenizer, [example.instruction for example in examples])
    responses = _response_ids(tokenizer, [example.response for example in examples])
    return [fit(prompt, [response], max_length)[0] for prompt, response in zip(prompts, responses, strict=True)]


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[PreferencePair], max_length: int
) -> list[tuple[Encoded, Encoded]]:
    """Every pair as (chosen, rejected), both after the same prompt tokens."""
    prompts = prompt_ids(tokenizer, [pair.instruction for pair in pairs])
    chosen = _response_ids(tokenizer, [pair.preferred for pair in pairs])
    rejected = _response_ids(tokenizer, [pair.dispreferred for pair in pairs])
    rows = (fit(prompt, answers, max_length) for prompt, *answers in zip(prompts, chosen, rejected, strict=True))
    return [(first, second) for first, second in rows]


def _alone(tokenizer: PreTrainedTokenizerBase, examples: Sequence[SftExample], max_length: int) -> list[Responses]:
    return [(row,) for row in encode_sft(tokenizer, examples, max_length)]


_ENCODERS: Mapping[Phase, Callable[[PreTrainedTokenizerBase, Sequence[Any], int], Sequence[Responses]]] = {
    "sft": _alone,
    "va": encode_pairs,
}


def _response_ids(tokenizer: PreTrainedTokenizerBase, responses: Sequence[str]) -> list[list[int]]:
    # The space belongs to the response: byte-level BPE then gives its first word the same token that it has inside a
    # sentence.
    return [
        [*row, int(tokenizer.eos_token_id)] for row in token_ids(tokenizer, [" " + response for response in responses])
    ]


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


def collate(rows: Sequence[Encoded], pad_id: int) -> Batch:
    """Pad rows on the right to the longest. Returns a `Batch` of B = len(rows)."""
    longest = max(len(row.ids) for row in rows)
    input_ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    response_mask = torch.zeros((len(rows), longest), dtype=torch.bool)
    for index, row in enumerate(rows):
        input_ids[index, : len(row.ids)] = torch.tensor(row.ids)
        response_mask[index, row.prompt_length : len(row.ids)] = True
    return Batch(input_ids, response_mask)
