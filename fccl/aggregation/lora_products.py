"""Products of LoRA factors and their weighted sums, without forming a dense matrix where the factors are smaller."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.ranks import Pair, pairs
from fccl.aggregation.protocol import Parts
from fccl.aggregation.vectors import one_thread

PASS_BYTES = 128 * 2**20  # of sums that are in memory at once; wider models take more passes over the updates


@dataclass
class ProductSum:
    """sum_i w_i B_i A_i of one module in float64, at most twice the size of the dense matrix (fan_out, fan_in).

    The factors stand side by side while that is smaller than the matrix; then they are multiplied out.
    """

    fan_out: int
    fan_in: int
    _left: list[Tensor] = field(default_factory=list)
    _right: list[Tensor] = field(default_factory=list)
    _dense: Tensor | None = None

    @one_thread()
    def add(self, weight: float, b: Tensor, a: Tensor) -> None:
        """Add w B A: B (fan_out, k), A (k, fan_in)."""
        self._left.append(b.double() * weight)
        self._right.append(a.double())
        if sum(map(len, self._right)) * (self.fan_out + self.fan_in) > self.fan_out * self.fan_in:
            self._multiply_out()

    @one_thread()
    def decomposed(self) -> tuple[Tensor, Tensor, Tensor]:
        """U (fan_out, k), the singular values (k,) in descending order, V' (k, fan_in).

        The largest entry of every column of U is positive, which makes the signs, and so the bytes, the same every
        time.
        """
        before, core, after = self._core()
        left, values, right = torch.linalg.svd(core, full_matrices=False)
        left, right = (left if before is None else before @ left), (right if after is None else right @ after)
        signs = left.gather(0, left.abs().argmax(dim=0, keepdim=True)).sign()
        return left * signs, values, right * signs.T

    @one_thread()
    def norm(self) -> float:
        """The Frobenius norm. Computed from the factors' Gram matrices, as ‖L R‖² = <L'L, R R'>: ten times faster than
        with their QR. When terms cancel it is exact to about 1e-8 of their own norms.
        """
        if self._dense is not None:
            self._multiply_out()
            return float(torch.linalg.matrix_norm(self._dense))
        return _root(self._gram())

    @one_thread()
    def norm_and_distance(self, b: Tensor, a: Tensor) -> tuple[float, float]:
        """The norm, and that of the difference to B A, which is then a part of the sum: B (fan_out, k), A (k, fan_in).

        Exact as `norm` is. One Gram matrix holds both: that of the difference has the sum's in its corner.
        """
        if self._dense is not None:
            norm = self.norm()
            self.add(-1.0, b, a)
            return norm, self.norm()
        own = sum(map(len, self._right))
        self._left.append(-b.double())
        self._right.append(a.double())
        gram = self._gram()
        return _root(gram[:own, :own]), _root(gram)

    def _gram(self) -> Tensor:
        """The inner products of the directions l_i r_i that the sum is made of: (k, k)."""
        left, right = torch.cat(self._left, dim=1), torch.cat(self._right)
        return (left.T @ left).mul_(right @ right.T)

    def _core(self) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Q, M, Q' with the sum = Q M Q': orthonormal around a small matrix, or nothing around the dense one."""
        if self._dense is not None:
            self._multiply_out()
            return None, self._dense, None
        left, small_left = torch.linalg.qr(torch.cat(self._left, dim=1))
        right, small_right = torch.linalg.qr(torch.cat(self._right).T)
        return left, small_left @ small_right.T, right.T

    def _multiply_out(self) -> None:
        if self._left:
            product = torch.cat(self._left, dim=1) @ torch.cat(self._right)
            self._dense = product if self._dense is None else self._dense.add_(product)
            self._left, self._right = [], []


def _root(gram: Tensor) -> float:
    """The norm of the sum of directions with these inner products; rounding may have made its square negative."""
    return math.sqrt(max(0.0, float(gram.sum())))


def mean_products(before: Adapter, parts: Parts) -> Iterator[tuple[Pair, ProductSum]]:
    """Every module of `before` and its sum_i w_i B_i A_i. What `before` has beyond an update's rank counts as sent back
    unchanged.

    As many modules in a pass over the updates as fit into `PASS_BYTES`. Raises `AdapterError` when an update does not
    fit `before`.
    """
    modules = pairs(before.form)
    ranks = list(
        zip(*(_ranks(modules, update.form) for update in parts.updates), strict=True)
    )  # by module, then by update
    for group in passes([_sum_bytes(pair, each) for pair, each in zip(modules, ranks, strict=True)]):
        sums = [ProductSum(modules[index].fan_out, modules[index].fan_in) for index in group]
        for weight, update in parts.counted():
            for index, total in zip(group, sums, strict=True):
                total.add(weight, update.tensors[modules[index].b], update.tensors[modules[index].a])
        for index, total in zip(group, sums, strict=True):
            _add_untrained(total, before, modules[index], parts.weights, ranks[index])
            yield modules[index], total


def _ranks(modules: Sequence[Pair], form: Form) -> list[int]:
    """The rank of each module in an update: at most that of the module, everything else the same.

    Raises `AdapterError`.
    """
    ranks = {pair.a: pair.rank for pair in pairs(form)}
    expected: dict[str, tuple[int, ...]] = {}
    for pair in modules:
        rank = min(ranks.get(pair.a, pair.rank), pair.rank)
        expected |= {pair.a: (rank, pair.fan_in), pair.b: (pair.fan_out, rank)}
    Form(expected).require(form)
    return [ranks[pair.a] for pair in modules]


def _add_untrained(
    total: ProductSum, before: Adapter, pair: Pair, weights: Sequence[float], ranks: Sequence[int]
) -> None:
    """Direction k of `before` stands behind all updates of rank <= k: it counts with their weight."""
    start = min(ranks)
    if start < pair.rank:
        behind = [
            math.fsum(weight for weight, rank in zip(weights, ranks, strict=True) if rank <= k)
            for k in range(start, pair.rank)
        ]
        b = before.tensors[pair.b][:, start:].double() * torch.tensor(behind, dtype=torch.float64)
        total.add(1.0, b, before.tensors[pair.a][start:])


def _sum_bytes(pair: Pair, ranks: Sequence[int]) -> int:
    """The most memory of one module's sum."""
    columns = sum(ranks) + pair.rank
    return 8 * min(columns * (pair.fan_in + pair.fan_out), 2 * pair.fan_in * pair.fan_out)


def passes(needs: Sequence[int]) -> Iterator[list[int]]:
    """The places of modules in groups that fit into `PASS_BYTES`, given the bytes of each; one is always taken."""
    group: list[int] = []
    held = 0
    for index, need in enumerate(needs):
        if group and held + need > PASS_BYTES:
            yield group
            group, held = [], 0
        group.append(index)
        held += need
    yield group
