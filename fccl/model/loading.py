"""Loading a model with an engine, once for everything in a process that needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

from fccl.errors import SettingsError
from fccl.model.gpt2_model import can_be_written_out, load_gpt2, written_out
from fccl.model.language_model import AUTO, GENERIC, GPT2, LanguageModel
from fccl.model.peft_model import load_peft_model
from fccl.specs import ModelSpec


def load_fastest(spec: ModelSpec) -> LanguageModel:
    """Load a model with the fastest engine that computes it."""
    model = load_peft_model(spec)
    return written_out(model) if can_be_written_out(model) else model


ENGINES: Mapping[str, Callable[[ModelSpec], LanguageModel]] = {
    AUTO: load_fastest,
    GENERIC: load_peft_model,
    GPT2: load_gpt2,
}


@dataclass
class Models:
    """The models of a process, each loaded at its first use: one a spec, so one a rank of its LoRA.

    An application makes one and hands it to the learner (`fccl.training.engines.learner_for`), to the validator and to
    everything else that needs the model, so that they all use the same engine and the same weights in memory:

        models = Models()
        learner, model = learner_for(models), models.of(spec)

    Raises `SettingsError` for an engine that is not there.
    """

    engine: str = GENERIC
    _loaded: dict[ModelSpec, LanguageModel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise SettingsError(f"{self.engine!r} is no engine", hint=f"there is {', '.join(sorted(ENGINES))}")

    @classmethod
    def holding(cls, model: LanguageModel, engine: str = GENERIC) -> Self:
        """With one model that is loaded already."""
        return cls(engine, {model.spec: model})

    def of(self, spec: ModelSpec) -> LanguageModel:
        """The model of this spec. Raises `ModelError` when it cannot be loaded."""
        if spec not in self._loaded:
            self._loaded[spec] = ENGINES[self.engine](spec)
        return self._loaded[spec]


def load_model(spec: ModelSpec, engine: str = GENERIC) -> LanguageModel:
    """One model, for a command that needs no other. Raises `ModelError`, and `SettingsError` for an unknown engine."""
    return Models(engine).of(spec)
