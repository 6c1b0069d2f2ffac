"""Responses that the model writes: greedy, or sampled from a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fccl.model.encoding import prompt_ids
from fccl.model.language_model import LanguageModel
from fccl.model.scoring import Progress, length_sorted_batches, no_progress
from fccl.specs import named_seed

ROWS_PER_SEQUENCE = 4  # a decoding step reads one token a row, so more rows fit in a batch than of whole sequences


@dataclass(frozen=True)
class Sampling:
    """Draw each token from softmax(logits / temperature).

    The seed and the instruction's index decide, not the batch it is in.
    """

    temperature: float
    seed: int


def generate(
    model: LanguageModel,
    instructions: Sequence[str],
    new_tokens: int,
    batch_size: int,
    sampling: Sampling | None = None,
    on_batch: Progress = no_progress,
) -> list[str]:
    """The response to each instruction, of at most `new_tokens` tokens, without the spaces around it; greedy unless
    `sampling` is given.

    It ends at end-of-text. A prompt that does not fit the context with the new tokens loses its beginning. torch's own
    random state is neither used nor changed.
    """
    room = model.spec.max_length
    new_tokens = min(new_tokens, room - room // 4)  # a quarter of the context is the prompt's, as in training
    prompts = [ids[-(room - new_tokens) :] for ids in prompt_ids(model.tokenizer, instructions)]
    texts, done = [""] * len(prompts), 0
    for indices in length_sorted_batches([len(ids) + new_tokens for ids in prompts], batch_size * ROWS_PER_SEQUENCE):
        processors = [_GumbelNoise(sampling, indices)] if sampling else []
        rows = _continue(model, [prompts[index] for index in indices], new_tokens, processors)
        for index, row in zip(indices, rows, strict=True):
            texts[index] = model.tokenizer.decode(
                row, skip_special_tokens=True, clean_up_tokenization_spaces=False
            ).strip()
        done += len(indices)
        on_batch(done, len(prompts))
    return texts


class _GumbelNoise:
    """Makes the greedy choice a draw from softmax(logits / temperature): the Gumbel-max trick (Gumbel 1954; Maddison et
    al. 2014).
    """

    def __init__(self, sampling: Sampling, indices: Sequence[int]) -> None:
        self.temperature = sampling.temperature
        self.draws = [torch.Generator().manual_seed(named_seed(sampling.seed, "generate", index)) for index in indices]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (B, V) -> (B, V), row by row from the row's own generator."""
        noise = torch.stack(
            [-torch.empty(scores.shape[1]).exponential_(generator=draw).clamp_min(1e-30).log() for draw in self.draws]
        )
        return scores.float() / self.temperature + noise.to(scores.device)


def _continue(
    model: LanguageModel, prompts: Sequence[Sequence[int]], new_tokens: int, processors: Sequence[_GumbelNoise]
) -> list[list[int]]:
    """The new token ids of each prompt. Prompts are padded on the left, so that all go on at the same column."""
    longest = max(map(len, prompts))
    input_ids = torch.full((len(prompts), longest), model.pad_id, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for index, prompt in enumerate(prompts):
        input_ids[index, longest - len(prompt) :] = torch.tensor(prompt)
        attention_mask[index, longest - len(prompt) :] = 1
    with _plain_greedy(model, new_tokens) as config:
        output = model.base.generate(
            input_ids=input_ids.to(model.device),
            attention_mask=attention_mask.to(model.device),
            generation_config=config,
            logits_processor=list(processors),
        )
    rows: list[list[int]] = output[:, longest:].tolist()
    return rows


@contextmanager
def _plain_greedy(model: LanguageModel, new_tokens: int) -> Iterator[Any]:
    """A generation config of the bare argmax.

    The model's own (a repetition penalty, say) would fill in what ours leaves open, so it steps aside.
    """
    own = model.base.generation_config
    config = type(own)(
        max_new_tokens=new_tokens,
        do_sample=False,
        num_beams=1,
        eos_token_id=model.tokenizer.eos_token_id,
        pad_token_id=model.pad_id,
        bos_token_id=model.tokenizer.bos_token_id,
    )
    model.base.generation_config = config
    try:
        yield config
    finally:
        model.base.generation_config = own
