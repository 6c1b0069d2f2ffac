"""GPT-2 with LoRA, forward and backward written out (Radford et al. 2019; Hu et al. 2021).

The base model is frozen: the only gradients are those of the LoRA factors, and of the activations on the way to them.
Every part is a function `x -> (y, backward)`, where `backward` turns dL/dy into dL/dx and adds to the gradients of its
factors. What it needs of the forward pass lives in it, and goes with it. `docs/training.md` has the derivations.

Shapes: T tokens of a batch in B sequences of at most L, of which N are predicted; H heads of C channels. D = H C is the
width, F the MLP's width, V the vocabulary, r the rank. Activations are packed, (T, D): only attention sees sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from fccl.model.frozen_weight import FrozenWeight
from fccl.model.packing import Packed

LOGITS_AT_ONCE = 1 << 23  # 32 MiB in float32: read again at once, so they should stay near the cores

Backward = Callable[[Tensor], Tensor]
Attend = Callable[[Tensor, Packed, int, bool], tuple[Tensor, Backward]]  # as `attention`


@dataclass(frozen=True, eq=False)
class Factors:
    """LoRA of one module: A (r, in), B (out, r) and their gradients, views into flat vectors.

    K clients may stand beside each other: r is then the sum of their ranks, and a token has directions of its own.
    """

    a: Tensor
    b: Tensor
    d_a: Tensor
    d_b: Tensor
    scale: float

    def add(self, x: Tensor, low: Tensor, d_y: Tensor, d_low: Tensor) -> None:
        """Add the gradients of a batch: of x (T, in), low and d_low (T, r), d_y (T, out)."""
        self.d_b.addmm_(d_y.T, low, alpha=self.scale)  # (out, r)
        self.d_a.addmm_(d_low.T, x)  # (r, in)


@dataclass(frozen=True, eq=False)
class Linear:
    """y = x W + c + s (x Aᵀ) Bᵀ: W (in, out) and c (out,) are `base`, at the precision that it has."""

    base: FrozenWeight
    lora: Factors | None = None

    def __call__(self, x: Tensor, foreign: Tensor | None = None) -> tuple[Tensor, Backward]:
        """x (T, in) -> y (T, out). `foreign` (T, r) is true at the directions of LoRA that a token does not have."""
        y = self.base(x)
        if self.lora is None:
            return y, self.base.back
        lora = self.lora
        low = _own(x @ lora.a.T, foreign)  # (T, r)

        def backward(d_y: Tensor) -> Tensor:
            d_low = _own((d_y @ lora.b).mul_(lora.scale), foreign)  # (T, r)
            lora.add(x, low, d_y, d_low)
            return self.base.back(d_y).addmm_(d_low, lora.a)  # (T, in)

        return y.addmm_(low, lora.b.T, alpha=lora.scale), backward


def _own(low: Tensor, foreign: Tensor | None) -> Tensor:
    """Zero in the directions that a token does not have, whatever stands there: (T, r) -> (T, r)."""
    return low if foreign is None else low.masked_fill_(foreign, 0)


@dataclass(frozen=True, eq=False)
class Norm:
    """Layer normalisation over the width, with weight and bias (D,)."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> tuple[Tensor, Backward]:
        """x (T, D) -> y (T, D)."""
        y, mean, rstd = torch.native_layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)

        def backward(d_y: Tensor) -> Tensor:
            only_x = [True, False, False]
            of = torch.ops.aten.native_layer_norm_backward
            d_x: Tensor = of(d_y, x, self.weight.shape, mean, rstd, self.weight, self.bias, only_x)[0]
            return d_x

        return y, backward


def attention(qkv: Tensor, packed: Packed, heads: int, learn: bool) -> tuple[Tensor, Backward]:
    """softmax(q kᵀ / √C) v in every sequence and head: qkv (T, 3 D) -> (T, D).

    The one step whose gradient is left to torch: its fused kernel never holds the L x L weights, in either direction.
    """
    (batch, longest), width = packed.shape, qkv.shape[1] // 3
    padded = qkv.new_zeros(batch * longest, 3 * width).index_copy_(0, packed.places, qkv).requires_grad_(learn)
    with torch.set_grad_enabled(learn):
        q, k, v = padded.view(batch, longest, 3, heads, -1).permute(2, 0, 3, 1, 4)  # each (B, H, L, C)
        out = functional.scaled_dot_product_attention(q, k, v, packed.mask, is_causal=packed.mask is None)
        merged = out.transpose(1, 2).reshape(batch * longest, width).index_select(0, packed.places)

    def backward(d_merged: Tensor) -> Tensor:
        (d_padded,) = torch.autograd.grad(merged, padded, d_merged)
        return d_padded[packed.places]

    return merged.detach(), backward


def gelu(u: Tensor) -> tuple[Tensor, Backward]:
    """GPT-2's activation, u (1 + tanh(√(2/π) (u + 0.044715 u³))) / 2, in one kernel each way: (T, F) -> (T, F)."""
    return functional.gelu(u, approximate="tanh"), lambda d_y: torch.ops.aten.gelu_backward(d_y, u, approximate="tanh")


@dataclass(frozen=True, eq=False)
class Block:
    """One layer: x' = x + proj(attention(qkv(norm x))), then x' + down(gelu(up(norm x')))."""

    norm_1: Norm
    qkv: Linear
    proj: Linear
    norm_2: Norm
    up: Linear
    down: Linear
    heads: int
    attend: Attend = attention

    def __call__(self, x: Tensor, packed: Packed, learn: bool, rows: Tensor | None) -> tuple[Tensor, Backward]:
        """x (T, D) -> (T, D). With `rows` (N,), (N, D): the last layer's, of which no other tokens are wanted."""
        foreign = packed.foreign
        normed, d_normed = self.norm_1(x)
        qkv, d_qkv = self.qkv(normed, foreign)
        merged, d_merged = self.attend(qkv, packed, self.heads, learn)
        if rows is not None:
            merged, kept = merged[rows], x[rows]
            foreign = None if foreign is None else foreign[rows]
        attended, d_attended = self.proj(merged, foreign)
        middle = attended.add_(x if rows is None else kept)
        inner, d_inner = self.mlp(middle, foreign)

        def backward(d_out: Tensor) -> Tensor:
            d_middle = d_inner(d_out).add_(d_out)
            d_heads = d_attended(d_middle)
            if rows is not None:
                d_heads, d_middle = _spread(d_heads, rows, len(x)), _spread(d_middle, rows, len(x))
            return d_normed(d_qkv(d_merged(d_heads))).add_(d_middle)

        return inner.add_(middle), backward

    @property
    def has_lora(self) -> bool:
        """Whether any of its linear maps carries LoRA."""
        return any(linear.lora is not None for linear in (self.qkv, self.proj, self.up, self.down))

    def mlp(self, middle: Tensor, foreign: Tensor | None) -> tuple[Tensor, Backward]:
        """down(gelu(up(norm x'))): (T, D) -> (T, D)."""
        normed, d_normed = self.norm_2(middle)
        u, d_u = self.up(normed, foreign)
        active, d_active = gelu(u)
        y, d_y = self.down(active, foreign)
        return y, lambda d_out: d_normed(d_u(d_active(d_y(d_out))))


def _spread(d_rows: Tensor, rows: Tensor, tokens: int) -> Tensor:
    """The gradient of `x[rows]`: (N, D) -> (T, D)."""
    return d_rows.new_zeros(tokens, d_rows.shape[1]).index_add_(0, rows, d_rows)


@dataclass(frozen=True, eq=False)
class Gpt2:
    """The whole model; tokens (V, D) are embeddings and output head alike, unless `head` (V, D) is another.

    `frozen` are the layers below the lowest with LoRA: what enters `blocks`, the others, is the same for ever. A caller
    may have it from before; without, it is computed.
    """

    tokens: Tensor
    positions: Tensor
    blocks: Sequence[Block]
    norm: Norm
    head: Tensor
    frozen: Sequence[Block] = ()

    def entering(self, packed: Packed) -> Tensor:
        """The activations that enter the lowest layer with LoRA, (T, D)."""
        x = self.tokens[packed.ids].add_(self.positions[packed.positions])
        for block in self.frozen:
            x, _ = block(x, packed, learn=False, rows=None)
        return x

    def log_probs(self, packed: Packed, entering: Tensor | None = None) -> Tensor:
        """log p of every target, (N,)."""
        return log_probs(self._hidden(packed, entering, learn=False)[0], self.head, packed.targets)

    def learn(self, packed: Packed, slopes: Callable[[Tensor], Tensor], entering: Tensor | None = None) -> Tensor:
        """log p of every target, (N,), and in the factors' gradients what `slopes` makes of them.

        `slopes` takes the log-probabilities and gives dL/d log p, (N,). Gradients are added to what is there.
        """
        hidden, backward = self._hidden(packed, entering, learn=True)
        found, jacobian = log_probs_with_jacobian(hidden, self.head, packed.targets)
        backward(jacobian.mul_(slopes(found).to(jacobian.dtype).unsqueeze(1)))
        return found

    def _hidden(self, packed: Packed, entering: Tensor | None, learn: bool) -> tuple[Tensor, Callable[[Tensor], None]]:
        """The last hidden state of the tokens that predict, (N, D)."""
        x = self.entering(packed) if entering is None else entering  # (T, D)
        steps: list[Backward] = []
        for block in self.blocks:
            x, step = block(x, packed, learn, packed.rows if block is self.blocks[-1] else None)
            if learn:
                steps.append(step)
        hidden, d_hidden = self.norm(x)

        def backward(d_x: Tensor) -> None:
            d_x = d_hidden(d_x)
            while steps:
                d_x = steps.pop()(d_x)  # and with the step goes what it kept

        return hidden, backward


def log_probs(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """log p of each target: hidden (N, D), head (V, D), targets (N,) -> (N,). The logits are made in chunks."""
    parts = [
        -functional.cross_entropy(rows @ head.T, wanted, reduction="none")
        for rows, wanted in _chunks(hidden, targets, len(head))
    ]
    return torch.cat(parts)


def log_probs_with_jacobian(hidden: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """log p of each target (N,) and its gradient in the hidden state, (N, D): head[target] - Σ_v p_v head[v].

    In one pass over chunks of rows: the logits are made once and turned into probabilities where they stand.
    """
    found, jacobian = [], torch.index_select(head, 0, targets)
    start = 0
    for rows, wanted in _chunks(hidden, targets, len(head)):
        logits = rows @ head.T  # (n, V)
        total = logits.logsumexp(dim=1, keepdim=True)
        found.append((logits.gather(1, wanted.unsqueeze(1)) - total).squeeze(1))
        jacobian[start : start + len(rows)].addmm_(logits.sub_(total).exp_(), head, alpha=-1)
        start += len(rows)
    return torch.cat(found), jacobian


def _chunks(hidden: Tensor, targets: Tensor, vocabulary: int) -> zip[tuple[Tensor, Tensor]]:
    rows = max(1, LOGITS_AT_ONCE // vocabulary)
    return zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
