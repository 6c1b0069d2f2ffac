"""Sequences without padding: the tokens of a batch one after the other, each prompt once.

Shapes: T tokens, N predicted tokens, B prompts with their responses, of at most L tokens together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fccl.model.rows import Encoded, Responses


@dataclass(frozen=True, eq=False)
class Packed:
    """The tokens of a batch, and those that are predicted.

    `ids` and `positions` (T,). `places` (T,) is where each token stands among B x L padded ones; `shape` is (B, L).
    `starts` (B + 1,) int32 is where each prompt begins among the T tokens, and last T.
    `rows` (N,) are the tokens whose last hidden state predicts `targets` (N,), and `owners` (N,) the numbers of their
    responses. `mask` (B, 1, L, L) is true where a token may look; None is causal. `foreign` (T, K r), where K
    clients train together, is true at the directions of LoRA that are not of the token's own client.
    """

    ids: Tensor
    positions: Tensor
    places: Tensor
    starts: Tensor
    rows: Tensor
    targets: Tensor
    owners: Tensor
    shape: tuple[int, int]
    responses: int
    mask: Tensor | None = None
    foreign: Tensor | None = None

    def to(self, device: torch.device) -> Packed:
        """The same on a device; itself where it is there."""
        if self.ids.device == device:
            return self
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    def sums(self, per_token: Tensor) -> Tensor:
        """The sum over each response's tokens, in float64 whatever comes in: (N,) -> (responses,)."""
        if per_token.is_cuda:  # whose index_add_ adds in any order, so that its last bits differ from run to run
            return _sums_in_order(per_token, self.owners, self.responses)
        zeros = torch.zeros(self.responses, dtype=torch.float64, device=per_token.device)
        return zeros.index_add_(0, self.owners, per_token.double())


def _sums_in_order(per_token: Tensor, owners: Tensor, responses: int) -> Tensor:
    """The sums that `index_add_` gives, by one reduction a response: (N,), (N,) -> (responses,) float64."""
    others = owners != torch.arange(responses, device=owners.device).unsqueeze(1)  # (responses, N)
    return per_token.double().expand_as(others).masked_fill(others, 0).sum(dim=1)


def pack(prompts: Sequence[Responses]) -> Packed:
    """Pack responses by their prompts: each item holds one prompt's responses, and its prompt is kept once.

    Responses are numbered in the order in which they come. They see their prompt and themselves, not each other, and
    their positions go on from the prompt's end, so each is what it is alone.

    >>> from fccl.model.rows import Encoded
    >>> one = Encoded((5, 6, 7, 1), prompt_length=2, truncated=False)
    >>> other = Encoded((5, 6, 8), prompt_length=2, truncated=False)
    >>> packed = pack([(one, other)])
    >>> packed.ids.tolist(), packed.positions.tolist()
    ([5, 6, 7, 1, 8], [0, 1, 2, 3, 2])
    >>> packed.rows.tolist(), packed.targets.tolist(), packed.owners.tolist()
    ([1, 2, 1], [7, 1, 8], [0, 0, 1])
    """
    longest = max(map(_length, prompts))
    plan = _Plan()
    for number, responses in enumerate(prompts):
        start = len(plan.ids)
        plan.starts.append(start)
        plan.add(responses)
        plan.places += range(number * longest, number * longest + len(plan.ids) - start)
    starts = torch.tensor([*plan.starts, len(plan.ids)], dtype=torch.int32)
    mask = _mask(prompts, longest) if any(len(responses) > 1 for responses in prompts) else None
    columns = (plan.ids, plan.positions, plan.places, plan.rows, plan.targets, plan.owners)
    ids, positions, places, rows, targets, owners = map(_column, columns)
    return Packed(ids, positions, places, starts, rows, targets, owners, (len(prompts), longest), plan.responses, mask)


def _column(values: Sequence[int]) -> Tensor:
    # by way of numpy, which reads a list several times faster than torch
    return torch.from_numpy(np.array(values, dtype=np.int64))


@dataclass
class _Plan:
    """The columns of a `Packed`, as they grow."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    responses: int = 0

    def add(self, responses: Responses) -> None:
        """One prompt with its responses."""
        start, prompt = len(self.ids), responses[0].ids[: responses[0].prompt_length]
        self.ids += prompt
        self.positions += range(len(prompt))
        for response in responses:
            self._respond(response, len(prompt), start)

    def _respond(self, response: Encoded, prompt_length: int, start: int) -> None:
        """One response after a prompt that begins at `start`. Nothing predicts the first token of all."""
        first, own = len(self.ids), response.ids[prompt_length:]
        if response.learnt is None:
            before, wanted = ([start + prompt_length - 1], own) if prompt_length and own else ([], own[1:])
            self.rows += [*before, *range(first, first + len(own) - 1)]
        else:
            wanted = tuple(response.ids[place] for place in response.learnt)
            behind = [place - 1 for place in response.learnt]
            self.rows += [start + each if each < prompt_length else first + each - prompt_length for each in behind]
        self.targets += wanted
        self.owners += [self.responses] * len(wanted)
        self.ids += own
        self.positions += range(prompt_length, prompt_length + len(own))
        self.responses += 1


def _length(responses: Responses) -> int:
    shared = responses[0].prompt_length
    return shared + sum(len(response.ids) - shared for response in responses)


def _mask(prompts: Sequence[Responses], longest: int) -> Tensor:
    """Causal, but that no response sees the others of its prompt: (B, 1, L, L)."""
    mask = torch.ones(longest, longest, dtype=torch.bool).tril().repeat(len(prompts), 1, 1)
    for one, responses in zip(mask, prompts, strict=True):
        prompt = start = responses[0].prompt_length
        for response in responses:
            one[start:, prompt:start] = False
            start += len(response.ids) - prompt
    return mask.unsqueeze(1)
