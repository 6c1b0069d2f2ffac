"""`MiddleModel`: any engine's model with a matrix R in the middle of each LoRA, B R A, of which R alone is trained.

Into the engine go A and the product B R as its B. Its gradient with respect to that product, times Bᵀ, is the gradient
with respect to R. So no engine knows of R, and each is as exact as before (LoRA-SB, Ponkshe et al. 2024).

Shapes: rank r; of each module A (r, fan_in), B (fan_out, r), R (r, r).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.middle import folded, middle_form, middles, with_middles
from fccl.adapters.ranks import initial
from fccl.model.clipping import clipped_one_by_one
from fccl.model.encoding import Responses
from fccl.model.language_model import Choose, EachLoss, Loss, LossAndGradient
from fccl.model.peft_model import PeftLanguageModel
from fccl.specs import ModelSpec


@dataclass(frozen=True)
class MiddleModel:
    """`fccl.model.language_model.LanguageModel` whose factors are the middle matrices. `plain` is the engine's model.

    `load` takes an adapter with its factors; `adapter` gives the middle matrices alone, as clients send them.
    """

    spec: ModelSpec
    plain: PeftLanguageModel
    _b: dict[str, Tensor] = field(default_factory=dict)  # B of the adapter that is loaded, by its name

    @property
    def engine(self) -> str:
        """The engine's name."""
        return self.plain.engine

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The engine's."""
        return self.plain.tokenizer

    @property
    def device(self) -> torch.device:
        """The device of the middle matrices and of everything returned."""
        return self.plain.device

    @property
    def made_of(self) -> tuple[str, ...]:
        """The base model's name, then the names of the adapters that were folded into it before."""
        return self.plain.made_of

    @cached_property
    def whole_form(self) -> Form:
        """Names and shapes of an adapter with its factors."""
        return with_middles(self.plain.form)

    @cached_property
    def form(self) -> Form:
        """Names and shapes of the middle matrices."""
        return middle_form(self.whole_form)

    @cached_property
    def factors(self) -> Mapping[str, nn.Parameter]:
        """The middle matrices in use, by name, sorted."""
        shapes = sorted(self.form.shapes.items())
        return {name: nn.Parameter(torch.zeros(shape, device=self.device)) for name, shape in shapes}

    def load(self, adapter: Adapter) -> None:
        """Copy an adapter's values in, factors and middle matrices. Raises `AdapterError` when it does not fit."""
        self.whole_form.require(adapter.form)
        outer = {name: adapter.tensors[name] for name in self.plain.form.shapes}
        self.plain.load(Adapter(outer))
        with torch.no_grad():
            for names in middles(self.form):
                self._b[names.b] = outer[names.b].to(self.device)
                self.factors[names.r].copy_(adapter.tensors[names.r])
        self._fold()

    @torch.no_grad()
    def _fold(self) -> None:
        """Put B R, (fan_out, r), where the engine has its B: an optimiser may have moved R since."""
        for names in middles(self.form):
            self.plain.factors[names.b].copy_(self._b[names.b] @ self.factors[names.r])

    def adapter(self) -> Adapter:
        """A copy of the middle matrices as they are now. Raises `AdapterError` when they are not finite."""
        return Adapter({name: matrix.detach().float().cpu().clone() for name, matrix in self.factors.items()})

    def initial_adapter(self, seed: int) -> Adapter:
        """An adapter without effect: A as a fresh LoRA has it, B and R zero."""
        return initial(self.whole_form, seed)

    def response_log_probs(self, examples: Sequence[Responses]) -> Tensor:
        """log p(response | prompt) of every response: (n, k)."""
        self._fold()
        return self.plain.response_log_probs(examples)

    def loss_and_gradient(
        self, examples: Sequence[Responses], loss: Loss, factors: Collection[str] | None = None
    ) -> LossAndGradient:
        """`loss` of the batch's log-probabilities, and its gradient with respect to the middle matrices."""
        self._fold()
        wanted = {names.b: names.r for names in middles(self.form) if factors is None or names.r in factors}
        found = self.plain.loss_and_gradient(examples, loss, wanted.keys())
        with torch.no_grad():
            gradient = {r: self._b[b].T @ found.gradient[b] for b, r in wanted.items()}  # (r, r) each
        return LossAndGradient(found.loss, gradient)

    def clipped_sum(
        self, examples: Sequence[Responses], losses: EachLoss, clip: float, factors: Collection[str] | None = None
    ) -> Mapping[str, Tensor]:
        """The sum of the examples' clipped gradients with respect to the middle matrices, one after another."""
        return clipped_one_by_one(self, examples, losses, clip, factors)

    def continuations(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, choose: Choose | None = None
    ) -> list[list[int]]:
        """At most `new_tokens` ids after each prompt."""
        self._fold()
        return self.plain.continuations(prompts, new_tokens, choose)

    def weights(self) -> Mapping[str, Tensor]:
        """The frozen base weights by name."""
        return self.plain.weights()

    def write_adapter(self, adapter: Adapter, folder: Path) -> None:
        """Write PEFT's files of the plain LoRA that it stands for: A, and B R in the place of B. Leaves it loaded."""
        self.plain.write_adapter(folded(adapter), folder)
        self.load(adapter)

    def write_merged(self, adapter: Adapter, folder: Path) -> None:
        """Write a plain model folder with B R A folded in. Leaves the adapter loaded and the model unchanged."""
        self.plain.write_merged(folded(adapter), folder)
        self.load(adapter)
