"""The model as a value: its base, its LoRA, the form of its texts."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from fccl.specs.bounds import Rank
from fccl.specs.values import Grown, Value

Engine = Literal["generic", "gpt2", "auto"]
BasePrecision = Literal["fp32", "bf16", "int8", "bnb-int8", "bnb-nf4"]
PromptFormat = Literal["plain", "chat"]
LearnTurns = Literal["last", "all"]


class TextForm(Value):
    """The form in which conversations reach the model, and the part of them that is learnt."""

    prompt: PromptFormat = "plain"  # `### Instruction`, or the chat template of the tokenizer
    learn: LearnTurns = "last"  # the last assistant turn of a conversation, or every one; pairs: always the last
    template: str = Field(default="", max_length=64)  # SHA-256 of the chat template; empty: any


PLAIN_TEXT = TextForm()


class ModelSpec(Grown):
    """The base model and its LoRA (Hu et al. 2021): update = (alpha / r) · B A on every target module."""

    LATER = frozenset({"text", "middle"})
    name: str = Field(min_length=1)
    lora_r: Rank
    lora_alpha: float = Field(gt=0)
    lora_targets: str = "auto"  # "auto" (PEFT's choice for the architecture), "all-linear", or module names with commas
    lora_layers: Annotated[int, Field(ge=1)] | None = None  # so many layers carry LoRA, the top ones; None is all
    max_length: int = Field(ge=8)  # tokens, prompt and response together
    engine: Engine = "generic"  # the code that computes it; two engines differ in float noise
    base_precision: BasePrecision = "fp32"  # of the frozen base's products; as in tasks and records that do not say it
    text: TextForm = PLAIN_TEXT
    middle: bool = False  # Singhal et al. 2025 (Fed-SB): train R of B R A alone, A and B are frozen

    def of_rank(self, rank: int) -> Self:
        """The same with another rank; alpha / r stays the number that it is."""
        return (
            self
            if rank == self.lora_r
            else self.model_copy(update={"lora_r": rank, "lora_alpha": self.lora_alpha * rank / self.lora_r})
        )
