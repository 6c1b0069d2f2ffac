"""`LanguageModel`: all that training, verification, validation, scoring, generation and export ask of a model.

Every loss of this project is a function of one number a response: its log-probability, summed over its tokens. So an
engine computes those numbers and, given a function of them, the gradient of the LoRA factors. Nothing here speaks of
padding, of logits or of torch's graph. An engine may pack rows, or share a prompt between the responses that follow it.
It may keep only the rows that a loss needs, or have its backward pass written out by hand.

Shapes: n examples of a batch, k responses of each (1 of an instruction, 2 of a preference pair), V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from fccl.adapters.adapter import Adapter, Form
from fccl.model.encoding import Responses
from fccl.specs import ModelSpec

GENERIC = "generic"  # the engine that serves any model, and the oracle of the others
GPT2 = "gpt2"  # GPT-2, forward and backward written out
Loss = Callable[[Tensor], Tensor]  # log-probabilities (n, k) to a scalar; differentiable by torch
EachLoss = Callable[[Tensor, Sequence[int]], Tensor]  # those of the examples at b places, (b, k), to losses (b,)
Choose = Callable[[Tensor], Tensor]  # logits (n, V) to scores (n, V): the highest score is the next token


@dataclass(frozen=True, eq=False)
class LossAndGradient:
    """The loss of a batch and its gradient, by the factor's name: contiguous, on the model's device."""

    loss: float
    gradient: Mapping[str, Tensor]


class LanguageModel(Protocol):
    """A causal language model with one LoRA adapter, for training and for evaluation alike: it has no dropout.

    `load` puts an adapter in, `adapter` takes it out. An engine is exact: its losses and gradients are those of the
    generic engine but for float noise. The same calls on the same machine give the same bits.
    """

    @property
    def engine(self) -> str:
        """The engine's name: two of them differ in float noise."""
        ...

    @property
    def spec(self) -> ModelSpec:
        """The model and its LoRA as the task has them."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Turns text to ids and back; has an end-of-text token."""
        ...

    @property
    def device(self) -> torch.device:
        """The device of the factors and of everything returned."""
        ...

    @property
    def made_of(self) -> tuple[str, ...]:
        """The base model's name, then the names of the adapters that were folded into it before."""
        ...

    @property
    def form(self) -> Form:
        """Names and shapes of the LoRA factors."""
        ...

    @property
    def factors(self) -> Mapping[str, Tensor]:
        """The LoRA factors in use, by PEFT's names, sorted. An optimiser writes to them in place."""
        ...

    def load(self, adapter: Adapter) -> None:
        """Copy an adapter's values in. The trailing directions of a wider one go into the frozen base weights.

        An adapter that was loaded before leaves no trace. Raises `AdapterError` when this one does not fit.
        """
        ...

    def adapter(self) -> Adapter:
        """A copy of the factors as they are now. Raises `AdapterError` when they are not finite."""
        ...

    def initial_adapter(self, seed: int) -> Adapter:
        """The adapter that a run starts from; its B is zero, so under it the model is the base model."""
        ...

    def response_log_probs(self, examples: Sequence[Responses]) -> Tensor:
        """log p(response | prompt) of every response, in nats: (n, k). One forward pass, no gradients."""
        ...

    def loss_and_gradient(
        self, examples: Sequence[Responses], loss: Loss, factors: Collection[str] | None = None
    ) -> LossAndGradient:
        """`loss` of the batch's log-probabilities, and its gradient with respect to the factors named; None is all."""
        ...

    def clipped_sum(
        self, examples: Sequence[Responses], losses: EachLoss, clip: float, factors: Collection[str] | None = None
    ) -> Mapping[str, Tensor]:
        """Σ_i g_i min(1, clip / ‖g_i‖), with g_i the gradient of example i's loss in all factors named: float64.

        A gradient that is not finite counts as zero. `losses` of an example must follow from that example alone.
        """
        ...

    def continuations(
        self, prompts: Sequence[Sequence[int]], new_tokens: int, choose: Choose | None = None
    ) -> list[list[int]]:
        """At most `new_tokens` ids after each prompt, end-of-text and padding included; greedy without `choose`."""
        ...

    def weights(self) -> Mapping[str, Tensor]:
        """The frozen base weights by name as they are now, trailing directions included; not to be written to."""
        ...

    def write_adapter(self, adapter: Adapter, folder: Path) -> None:
        """Write PEFT's files of an adapter of any rank: the same adapter gives the same bytes. Leaves it loaded."""
        ...

    def write_merged(self, adapter: Adapter, folder: Path) -> None:
        """Write a plain model folder with the adapter folded in. Leaves the adapter loaded and the model unchanged."""
        ...


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads inside the block; 0 leaves it alone. The last bits of sums depend on this."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
