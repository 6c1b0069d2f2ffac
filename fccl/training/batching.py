"""The order in which examples are read."""

from __future__ import annotations

from collections.abc import Sequence

import torch

BUCKET = 16  # batches that are sorted by length together


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int) -> list[list[int]]:
    """Every index once, in shuffled batches of examples of like length.

    The indices are shuffled, then sorted by length within buckets of `BUCKET` batches. So a batch has little padding
    and yet differs from epoch to epoch. The batches are shuffled again, so short and long ones alternate. The last
    batch of a bucket may be smaller.
    """
    draw = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(lengths), generator=draw).tolist()
    bucket_size = batch_size * BUCKET
    batches: list[list[int]] = []
    for start in range(0, len(order), bucket_size):
        bucket = sorted(order[start : start + bucket_size], key=lambda index: lengths[index])
        batches.extend(bucket[at : at + batch_size] for at in range(0, len(bucket), batch_size))
    return [batches[index] for index in torch.randperm(len(batches), generator=draw).tolist()]
