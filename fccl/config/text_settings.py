"""The settings of the text that a model reads: its form, the part that is learnt, its length."""

from __future__ import annotations

from typing import Literal

from pydantic_settings import BaseSettings

from fccl.config.fields import knob
from fccl.presets import MOST_TOKENS
from fccl.specs import LearnTurns, TextForm


class TextSettings(BaseSettings):
    """The settings that say how a conversation becomes the text of one example."""

    prompt_format: Literal["auto", "plain", "chat"] = knob(
        "model",
        "auto",
        "the form of prompts: plain, or chat, the tokenizer's chat template; auto: chat where it has one",
    )
    learn_turns: LearnTurns = knob(
        "model", "last", "the assistant turns of a conversation that SFT learns: the last one, or all"
    )
    max_length: int = knob(
        "model",
        256,
        "tokens of prompt and response together, at least 8; the prompt is cut from the left; 0: the model's own "
        f"context, at most {MOST_TOKENS:,}",
        ge=0,
    )

    @property
    def text_form(self) -> TextForm:
        """The form and what is learnt; plain where that is left open, which a run decides before."""
        return TextForm(prompt="chat", learn=self.learn_turns) if self.prompt_format == "chat" else TextForm()
