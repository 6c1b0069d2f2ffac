"""FLoRA-NA (Nguyen et al. 2025), "nearly accurate": the product nearest to the mean of the products that linear
combinations of the clients' factors give.

    min over q, p of ‖sum_i w_i B_i A_i - (sum_i q_i B_i) (sum_j p_j A_j)‖

in the Frobenius norm, for every module by itself. For given p it is least squares in q, and the other way round. They
are solved by turns from p = q = w, where the product is that of the mean factors. The error is never above that of
`factors`, and never below that of `svd`, which is bound to no combination.

The scale is A's to keep: in the end p is divided by its sum, and q is multiplied by it. All of it needs only the r x r
products of factors with each other. The paper's abstract has the objective; the combinations and the solution by turns
are as implemented here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import Pair, pairs
from fccl.aggregation.lora_products import passes
from fccl.aggregation.product_rule import ProductRule
from fccl.aggregation.protocol import Aggregated, Parts
from fccl.aggregation.state import ServerState
from fccl.aggregation.vectors import finite_adapter, one_thread

TURNS = 20  # each a least squares of q and one of p
CUT = 1e-10  # of the largest singular value: what is below counts as 0 in a solution


class LoraNearly(ProductRule):
    """The nearest product of combined factors, of the federation's rank. All clients train that rank."""

    name: Literal["nearly"] = "nearly"

    def aggregate(self, before: Adapter, parts: Parts, state: ServerState) -> Aggregated:
        parts.require_form(before.form)
        weights = self.weighing.weigh(before, parts)
        tensors: dict[str, Tensor] = {}
        for group in _groups(pairs(before.form), len(parts)):
            for pair, (b, a) in zip(group, _factors(group, parts), strict=True):
                q, p = combined(torch.tensor(weights, dtype=torch.float64), b, a)
                tensors[pair.b] = torch.einsum("i,ior->or", q, b).float()
                tensors[pair.a] = torch.einsum("i,irc->rc", p, a).float()
        return Aggregated(finite_adapter(tensors, self.name), state, weights)


@one_thread()
def combined(weights: Tensor, b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """q and p, both (n,), for B (n, fan_out, r) and A (n, r, fan_in) in float64."""
    bb = torch.einsum("ioa,job->ijab", b, b)  # (n, n, r, r): B_i' B_j
    aa = torch.einsum("iac,jbc->ijab", a, a)  # (n, n, r, r): A_i A_j'
    wanted = torch.einsum("k,kiab,jkba->ij", weights, bb, aa)  # (n, n): <sum_k w_k B_k A_k, B_i A_j>
    q, p = weights, weights
    for _ in range(TURNS):
        of_a = torch.einsum("j,l,jlab->ab", p, p, aa)  # (r, r): A A' of the combined A
        q = _solved(torch.einsum("ikab,ba->ik", bb, of_a), wanted @ p)
        of_b = torch.einsum("i,k,ikab->ab", q, q, bb)  # (r, r): B' B of the combined B
        if not bool(of_b.any()):
            return q, weights  # nothing to be near to: A stays as the mean
        p = _solved(torch.einsum("ab,ljba->jl", of_b, aa), q @ wanted)
    total = float(p.sum())
    return (q * total, p / total) if abs(total) > CUT else (q, p)


def _solved(inner: Tensor, wanted: Tensor) -> Tensor:
    """The shortest least-squares solution of inner x = wanted; inner (n, n) is a Gram matrix."""
    inverse: Tensor = torch.linalg.pinv(inner, rtol=CUT, hermitian=True)
    return inverse @ wanted


def _groups(modules: Sequence[Pair], updates: int) -> Iterator[list[Pair]]:
    """The modules in groups whose factors, of all updates, fit into memory at once."""
    needs = [8 * updates * pair.rank * (pair.fan_in + pair.fan_out) for pair in modules]
    yield from ([modules[index] for index in group] for group in passes(needs))


def _factors(group: Sequence[Pair], parts: Parts) -> list[tuple[Tensor, Tensor]]:
    """B (n, fan_out, r) and A (n, r, fan_in) of every module of a group, in float64; one pass over the updates."""
    loaded = [[(adapter.tensors[pair.b], adapter.tensors[pair.a]) for pair in group] for _, adapter in parts]
    return [
        (torch.stack([b for b, _ in each]).double(), torch.stack([a for _, a in each]).double())
        for each in zip(*loaded, strict=True)
    ]
