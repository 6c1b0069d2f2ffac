"""Masks as literal tensors, and what is cut when the context is too short."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fccl.data.examples import PreferencePair, SftExample
from fccl.model.encoding import Encoded, collate, encode_pairs, encode_sft, fit

ids = st.lists(st.integers(1, 9), min_size=1, max_size=30)


def test_masks_as_literal_tensors():
    batch = collate([Encoded((5, 6, 7, 1, 9), 3, False), Encoded((5, 6, 9), 2, False)], pad_id=9)
    assert batch.input_ids.tolist() == [[5, 6, 7, 1, 9], [5, 6, 9, 9, 9]]
    assert batch.response_mask.tolist() == [[False, False, False, True, True], [False, False, True, False, False]]
    assert batch.input_ids.dtype == torch.long


def test_end_of_text_counts_and_padding_does_not(tiny_model):
    tokenizer = tiny_model.tokenizer
    rows = encode_sft(tokenizer, [SftExample("a", "b"), SftExample("a b c", "a b c")], 100)
    batch = collate(rows, tiny_model.pad_id)
    for row, ids_, mask in zip(rows, batch.input_ids, batch.response_mask, strict=True):
        assert row.ids[-1] == tokenizer.eos_token_id
        assert ids_[mask].tolist() == list(row.ids[row.prompt_length :])
    first = batch.input_ids[0].tolist()
    assert first[len(rows[0].ids) :] == [tokenizer.eos_token_id] * (len(first) - len(rows[0].ids))


def test_the_text_is_prompt_and_response(tiny_model):
    tokenizer = tiny_model.tokenizer
    row = encode_sft(tokenizer, [SftExample("Say it.", "It is so.")], 100)[0]
    assert tokenizer.decode(row.ids[: row.prompt_length]) == "### Instruction:\nSay it.\n\n### Response:"
    assert tokenizer.decode(row.ids[row.prompt_length : -1]) == " It is so."


def test_chosen_and_rejected_follow_the_same_prompt(tiny_model):
    long = "word " * 200
    for chosen, rejected in encode_pairs(
        tiny_model.tokenizer, [PreferencePair(long, long, "no"), PreferencePair("a", "b", "c")], 64
    ):
        assert chosen.prompt_length == rejected.prompt_length
        assert chosen.ids[: chosen.prompt_length] == rejected.ids[: rejected.prompt_length]
        assert max(len(chosen.ids), len(rejected.ids)) <= 64


@given(ids, st.lists(ids, min_size=1, max_size=2), st.integers(8, 40))
def test_fit_keeps_the_end_of_the_prompt_and_the_start_of_the_response(prompt, responses, max_length):
    for row, response in zip(fit(prompt, responses, max_length), responses, strict=True):
        kept_prompt, kept_response = list(row.ids[: row.prompt_length]), list(row.ids[row.prompt_length :])
        assert len(row.ids) <= max_length
        assert prompt[len(prompt) - len(kept_prompt) :] == kept_prompt
        assert response[: len(kept_response)] == kept_response
        assert kept_response, "the response never vanishes"
        assert row.truncated == (len(kept_prompt) < len(prompt) or len(kept_response) < len(response))


@pytest.mark.parametrize(
    ("prompt", "response", "expected", "prompt_length"),
    [
        ([1] * 4, [2] * 4, [1] * 4 + [2] * 4, 4),  # fits exactly
        ([1, 3, 3], [2] * 6, [3, 3] + [2] * 6, 2),  # the prompt loses its beginning
        ([1] * 20, [2] * 20, [1] * 2 + [2] * 6, 2),  # down to a quarter, then the response loses its end
    ],
)
def test_what_is_cut(prompt, response, expected, prompt_length):
    row = fit(prompt, [response], 8)[0]
    assert (list(row.ids), row.prompt_length) == (expected, prompt_length)
