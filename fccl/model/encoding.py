"""Text to token ids: prompt and response joined, cut to the context, padded, with the mask of what counts.

Two forms: the plain one, written here, and the tokenizer's chat template (`fccl.model.chat`).
Shapes: B rows, T tokens. Rows are padded on the right, where a causal model's real tokens never look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from fccl.data.examples import (
    PreferencePair,
    Prompt,
    SftExample,
    conversation_of,
    instruction_of,
    prompt_of,
)
from fccl.model.chat import Chat
from fccl.model.rows import Batch, Encoded, Responses, fit
from fccl.model.tokens import token_ids
from fccl.specs import PLAIN_TEXT, Phase, TextForm

__all__ = ["Batch", "Encoded", "Responses", "collate", "encode", "encode_pairs", "encode_sft", "fit", "prompt_ids"]


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], text: TextForm = PLAIN_TEXT
) -> list[list[int]]:
    """The token ids of each prompt, up to where its response begins. In the plain form an end-of-text token that the
    tokenizer appends by itself is taken off.

    Raises `ModelError` when the chat template cannot be rendered.
    """
    if text.prompt == "chat":
        chat = Chat(tokenizer)
        return [chat.prompt_ids(conversation_of(prompt)) for prompt in prompts]
    rows = token_ids(tokenizer, [prompt_of(instruction_of(prompt)) for prompt in prompts], special=True)
    return [row[:-1] if row and row[-1] == tokenizer.eos_token_id else row for row in rows]


def encode(
    tokenizer: PreTrainedTokenizerBase,
    phase: Phase,
    examples: Sequence[SftExample | PreferencePair],
    max_length: int,
    text: TextForm = PLAIN_TEXT,
) -> list[Responses]:
    """The examples of a phase in tokens, at most `max_length` a response with its prompt. Raises as `prompt_ids`."""
    return list(_ENCODERS[phase](tokenizer, examples, max_length, text))


def encode_sft(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[SftExample], max_length: int, text: TextForm = PLAIN_TEXT
) -> list[Encoded]:
    """Every example as one row of at most `max_length` tokens. Raises as `prompt_ids`."""
    if text.prompt == "chat":
        chat = Chat(tokenizer, text.learn)
        return [chat.row(conversation_of(example), example.response, max_length) for example in examples]
    prompts = prompt_ids(tokenizer, examples)
    responses = _response_ids(tokenizer, [example.response for example in examples])
    return [fit(prompt, [response], max_length)[0] for prompt, response in zip(prompts, responses, strict=True)]


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[PreferencePair], max_length: int, text: TextForm = PLAIN_TEXT
) -> list[tuple[Encoded, Encoded]]:
    """Every pair as (chosen, rejected), both after the same prompt tokens. Raises as `prompt_ids`."""
    if text.prompt == "chat":
        chat = Chat(tokenizer)
        answered = [chat.rows(conversation_of(pair), [pair.preferred, pair.dispreferred], max_length) for pair in pairs]
        return [(first, second) for first, second in answered]
    prompts = prompt_ids(tokenizer, pairs)
    chosen = _response_ids(tokenizer, [pair.preferred for pair in pairs])
    rejected = _response_ids(tokenizer, [pair.dispreferred for pair in pairs])
    rows = (fit(prompt, answers, max_length) for prompt, *answers in zip(prompts, chosen, rejected, strict=True))
    return [(first, second) for first, second in rows]


def _alone(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[SftExample], max_length: int, text: TextForm
) -> list[Responses]:
    return [(row,) for row in encode_sft(tokenizer, examples, max_length, text)]


_Encoder = Callable[[PreTrainedTokenizerBase, Sequence[Any], int, TextForm], Sequence[Responses]]
_ENCODERS: Mapping[Phase, _Encoder] = {"sft": _alone, "va": encode_pairs}


def _response_ids(tokenizer: PreTrainedTokenizerBase, responses: Sequence[str]) -> list[list[int]]:
    # The space belongs to the response: byte-level BPE then gives its first word the same token that it has inside a
    # sentence.
    return [
        [*row, int(tokenizer.eos_token_id)] for row in token_ids(tokenizer, [" " + response for response in responses])
    ]


def collate(rows: Sequence[Encoded], pad_id: int) -> Batch:
    """Pad rows on the right to the longest. Returns a `Batch` of B = len(rows)."""
    longest = max(len(row.ids) for row in rows)
    input_ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    response_mask = torch.zeros((len(rows), longest), dtype=torch.bool)
    for index, row in enumerate(rows):
        input_ids[index, : len(row.ids)] = torch.tensor(row.ids)
        response_mask[index, list(row.places)] = True
    return Batch(input_ids, response_mask)
