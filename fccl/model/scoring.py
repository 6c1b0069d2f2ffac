"""Log-probabilities of whole data sets under the adapter that is loaded: batched, without gradients, in the examples'
own order.

Shapes: n examples or pairs, B of a batch. Log-probabilities are natural. A forward pass has at most `batch_size`
sequences and about `TOKENS_AT_ONCE` tokens, padding included, which bounds the memory of the logits; neither changes a
result beyond float noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fccl.errors import DIVERGED, LOWER_RATE, AdapterError
from fccl.model.encoding import Encoded, Responses
from fccl.model.language_model import LanguageModel

TOKENS_AT_ONCE = 4096

EncodedPair = tuple[Encoded, Encoded]  # chosen, rejected
Progress = Callable[[int, int], None]  # done, total


def no_progress(done: int, total: int) -> None:
    """The listener that nobody waits for."""


@dataclass(frozen=True, eq=False)
class SftScores:
    """Of each example: `nll` (n,), the sum over its response tokens in nats, and `tokens` (n,), how many these are."""

    nll: NDArray[np.float64]
    tokens: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PairScores:
    """Of each pair: log p(response | prompt) of both responses (n,), in nats, and their response tokens (n,)."""

    chosen: NDArray[np.float64]
    rejected: NDArray[np.float64]
    chosen_tokens: NDArray[np.int64]
    rejected_tokens: NDArray[np.int64]

    @property
    def log_probs(self) -> Tensor:
        """Of both: (n, 2) float64."""
        return torch.from_numpy(np.stack([self.chosen, self.rejected], axis=1))

    @property
    def margins(self) -> NDArray[np.float64]:
        """log p(chosen) - log p(rejected), (n,)."""
        return self.chosen - self.rejected

    @property
    def margins_per_token(self) -> NDArray[np.float64]:
        """The same of the means over response tokens, which a longer response does not lower, (n,)."""
        return self.chosen / self.chosen_tokens - self.rejected / self.rejected_tokens


def length_sorted_batches(
    lengths: Sequence[int], batch_size: int, tokens_at_once: int = TOKENS_AT_ONCE
) -> list[list[int]]:
    """Every index once, shortest first, in batches of at most `batch_size` rows and, unless one row is longer,
    `tokens_at_once` tokens.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if not batches or len(batches[-1]) >= batch_size or (len(batches[-1]) + 1) * lengths[index] > tokens_at_once:
            batches.append([])
        batches[-1].append(index)
    return batches


def token_counts(examples: Sequence[Responses]) -> list[int]:
    """Tokens of each example, all responses with their prompts."""
    return [sum(len(row.ids) for row in responses) for responses in examples]


def score_sft(
    model: LanguageModel, rows: Sequence[Encoded], batch_size: int, on_batch: Progress = no_progress
) -> SftScores:
    """The response NLL of every row. Raises `AdapterError` when one is not finite."""

    def nll(indices: Sequence[int]) -> Tensor:
        return -model.response_log_probs([(rows[index],) for index in indices])[:, 0]

    result = _in_batches(nll, [len(row.ids) for row in rows], batch_size, on_batch)
    return SftScores(result, _response_tokens(rows))


def score_pairs(
    model: LanguageModel, pairs: Sequence[EncodedPair], batch_size: int, on_batch: Progress = no_progress
) -> PairScores:
    """log p of both responses of every pair; a pair is two sequences of the batch.

    Raises `AdapterError` when one is not finite.
    """

    def log_probs(indices: Sequence[int]) -> Tensor:
        return model.response_log_probs([pairs[index] for index in indices])

    result = _in_batches(log_probs, token_counts(pairs), max(1, batch_size // 2), on_batch)
    chosen, rejected = result.reshape(len(pairs), 2).T
    return PairScores(
        chosen, rejected, _response_tokens([pair[0] for pair in pairs]), _response_tokens([pair[1] for pair in pairs])
    )


def _in_batches(
    score: Callable[[Sequence[int]], Tensor], lengths: Sequence[int], batch_size: int, on_batch: Progress
) -> NDArray[np.float64]:
    """`score` of all indices, (n,) or (n, k), in their own order."""
    parts, order = [], []
    for indices in length_sorted_batches(lengths, batch_size):
        parts.append(score(indices).double().cpu())
        order.extend(indices)
        on_batch(len(order), len(lengths))
    if not order:
        return np.zeros(0)
    scores = torch.cat(parts)
    if not bool(torch.isfinite(scores).all()):
        said = f"{DIVERGED}: the model's log-probabilities are not finite under this adapter"
        raise AdapterError(said, LOWER_RATE, resumable=False)
    result = torch.empty_like(scores)
    result[order] = scores
    return np.asarray(result.numpy())


def _response_tokens(rows: Sequence[Encoded]) -> NDArray[np.int64]:
    return np.array([row.response_length for row in rows], dtype=np.int64)
