"""Responses that the model writes: greedy, or sampled from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor

from fccl.data.examples import Prompt
from fccl.model.chat import end_ids
from fccl.model.encoding import prompt_ids
from fccl.model.language_model import LanguageModel
from fccl.model.scoring import Progress, length_sorted_batches, no_progress
from fccl.specs import named_seed

ROWS_PER_SEQUENCE = 4  # a decoding step reads one token a row, so more rows fit in a batch than of whole sequences


@dataclass(frozen=True)
class Sampling:
    """Draw each token from softmax(logits / temperature).

    The seed and the prompt's index decide, not the batch it is in.
    """

    temperature: float
    seed: int


def generate(
    model: LanguageModel,
    prompts: Sequence[Prompt],
    new_tokens: int,
    batch_size: int,
    sampling: Sampling | None = None,
    on_batch: Progress = no_progress,
) -> list[str]:
    """The response to each prompt, of at most `new_tokens` tokens, without the spaces around it; greedy unless
    `sampling` is given.

    It ends at end-of-text, and in a chat at the end of the turn. A prompt that does not fit the context with the new
    tokens loses its beginning. torch's own random state is neither used nor changed.
    """
    room = model.spec.max_length
    new_tokens = min(new_tokens, room - room // 4)  # a quarter of the context is the prompt's, as in training
    rows = prompt_ids(model.tokenizer, prompts, model.spec.text)
    asked, ends = [ids[-(room - new_tokens) :] for ids in rows], set(end_ids(model.tokenizer, model.spec.text))
    texts, done = [""] * len(asked), 0
    for indices in length_sorted_batches([len(ids) + new_tokens for ids in asked], batch_size * ROWS_PER_SEQUENCE):
        choose = _GumbelNoise(sampling, indices) if sampling else None
        answers = model.continuations([asked[index] for index in indices], new_tokens, choose)
        for index, answer in zip(indices, answers, strict=True):
            own = list(takewhile(lambda number: number not in ends, answer))
            texts[index] = model.tokenizer.decode(
                own, skip_special_tokens=True, clean_up_tokenization_spaces=False
            ).strip()
        done += len(indices)
        on_batch(done, len(asked))
    return texts


class _GumbelNoise:
    """Makes the greedy choice a draw from softmax(logits / temperature): the Gumbel-max trick (Gumbel 1954; Maddison et
    al. 2014).
    """

    def __init__(self, sampling: Sampling, indices: Sequence[int]) -> None:
        self.temperature = sampling.temperature
        self.draws = [torch.Generator().manual_seed(named_seed(sampling.seed, "generate", index)) for index in indices]

    def __call__(self, scores: Tensor) -> Tensor:
        """Scores (B, V) -> (B, V), row by row from the row's own generator."""
        noise = torch.stack(
            [-torch.empty(scores.shape[1]).exponential_(generator=draw).clamp_min(1e-30).log() for draw in self.draws]
        )
        return scores.float() / self.temperature + noise.to(scores.device)
