"""LoRA of several clients in one written-out GPT-2: base products over all tokens, low-rank ones by client.

The factors of K clients stand beside each other, as one LoRA of rank K r. A token of client k keeps its own r of the
K r numbers x Aᵀ and loses the others (`Packed.foreign`), forward and backward. What remains is x A_kᵀ B_kᵀ, exactly;
the same two products give the gradients of all clients, each from its own tokens alone.

Shapes: K clients, rank r, T tokens, P numbers in the factors of one client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from fccl.model.gpt2 import Factors, Gpt2
from fccl.model.gpt2_model import Gpt2LanguageModel, gpt2_with_lora


@dataclass(frozen=True, eq=False)
class ClientFactors:
    """The factors of K clients in one vector, `values` (K P,), and their gradients in another, `gradient` (K P,).

    Both go factor by factor, in the order of names; a factor has its clients one after another. B is kept transposed,
    so that in A and B alike the r directions of a client are rows that follow each other.
    """

    clients: int
    shapes: Mapping[str, tuple[int, ...]]  # of one client's factors, by PEFT's saved names, sorted
    values: Tensor
    gradient: Tensor

    @classmethod
    def of(cls, parameters: Mapping[str, Tensor], clients: int) -> ClientFactors:
        """Of so many clients, all with these factors."""
        ordered = {name: parameters[name].detach() for name in sorted(parameters)}
        parts = [_rows(name, value).reshape(-1).repeat(clients) for name, value in ordered.items()]
        values = torch.cat(parts)
        return cls(clients, {name: tuple(value.shape) for name, value in ordered.items()}, values, values * 0)

    def blocks(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector (K P,) by factor: A as (K, r, in), B as (K, r, out)."""
        sizes = [self.clients * _numel(shape) for shape in self.shapes.values()]
        parts = zip(self.shapes.items(), vector.split(sizes), strict=True)  # type: ignore[no-untyped-call]
        return {
            name: part.view(self.clients, *(shape if _is_a(name) else reversed(shape))) for (name, shape), part in parts
        }

    def of_client(self, vector: Tensor, client: int) -> dict[str, Tensor]:
        """One client's part of a vector (K P,), as PEFT has the factors: A (r, in), B (out, r). They are views."""
        return {name: _rows(name, block[client]) for name, block in self.blocks(vector).items()}

    @cached_property
    def owners(self) -> Tensor:
        """The client of each number of a vector: (K P,) int32."""
        found = torch.empty(len(self.values), dtype=torch.int32, device=self.values.device)
        numbers = torch.arange(self.clients, dtype=torch.int32, device=found.device)
        for block in self.blocks(found).values():
            block.copy_(numbers.view(-1, 1, 1).expand_as(block))
        return found

    def lora(self, a_name: str, b_name: str, scale: float) -> Factors:
        """The factors of one module, all clients beside each other: A (K r, in), B (out, K r)."""
        values, gradient = self.blocks(self.values), self.blocks(self.gradient)
        a, d_a = (blocks[a_name].flatten(0, 1) for blocks in (values, gradient))
        b, d_b = (blocks[b_name].flatten(0, 1).T for blocks in (values, gradient))
        return Factors(a, b, d_a, d_b, scale)

    def foreign(self, token_clients: Tensor) -> Tensor:
        """The directions that are not of a token's own client: (T,) -> (T, K r). A client below 0 has none."""
        rank = next(shape[0] for name, shape in self.shapes.items() if _is_a(name))
        directions = torch.arange(self.clients, device=token_clients.device).repeat_interleave(rank)  # (K r,)
        return token_clients.unsqueeze(1) != directions


def gpt2_with(model: Gpt2LanguageModel, factors: ClientFactors) -> Gpt2:
    """The written-out model with these factors in the place of its own; the frozen weights are the same in memory."""
    scale = model.spec.lora_alpha / model.spec.lora_r
    base = cast(GPT2LMHeadModel, model.base)
    return gpt2_with_lora(base, model.factors, lambda a, b: factors.lora(a, b, scale), model.spec.base_precision)


def _is_a(name: str) -> bool:
    return ".lora_A." in name


def _rows(name: str, factor: Tensor) -> Tensor:
    """A factor with its directions as rows, and back again: B is transposed."""
    return factor if _is_a(name) else factor.T


def _numel(shape: tuple[int, ...]) -> int:
    return shape[0] * shape[1]
