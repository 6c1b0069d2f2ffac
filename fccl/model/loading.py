"""Loading a model with an engine, once for everything in a process that needs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

from fccl.model.activations import Activations
from fccl.model.frozen_weight import FROZEN
from fccl.model.gpt2_model import can_be_written_out, load_gpt2, written_out
from fccl.model.int8_layers import compute_in_int8
from fccl.model.language_model import LanguageModel
from fccl.model.middle_model import MiddleModel
from fccl.model.peft_model import LOADING, PeftLanguageModel, load_peft_model
from fccl.model.precision import require_precision
from fccl.model.text_form import require_template, require_usable, without_template
from fccl.specs import Engine, ModelSpec


def load_fastest(spec: ModelSpec, activations: Activations) -> PeftLanguageModel:
    """Load a model with the fastest engine that computes it. Raises `ModelError`."""
    require_precision(spec)
    model = load_peft_model(spec)
    takes = spec.base_precision in FROZEN and can_be_written_out(model)
    return written_out(model, activations) if takes else _generic(model)


def load_generic(spec: ModelSpec, activations: Activations) -> PeftLanguageModel:
    """Load any model; it keeps no activations. Raises `ModelError` when it cannot be had or computed."""
    require_precision(spec)
    return _generic(load_peft_model(spec))


def _generic(model: PeftLanguageModel) -> PeftLanguageModel:
    if model.spec.base_precision == "int8":
        compute_in_int8(model.base)
    return model


ENGINES: Mapping[Engine, Callable[[ModelSpec, Activations], PeftLanguageModel]] = {
    "generic": load_generic,
    "gpt2": load_gpt2,
    "auto": load_fastest,
}


@dataclass
class Models:
    """The models of a process, each loaded at its first use: one a spec, so one a rank of its LoRA.

    An application makes one and hands it to all that needs the model: the learner
    (`fccl.training.engines.learner_for`), the validator, the evaluation. They all use the same weights in memory:

        models = Models()
        learner, model = learner_for(models), models.of(spec)

    They share `activations`, which may reach to the disk.
    """

    _loaded: dict[ModelSpec, LanguageModel] = field(default_factory=dict)
    activations: Activations = field(default_factory=Activations)

    @classmethod
    def holding(cls, model: LanguageModel) -> Self:
        """With one model that is loaded already."""
        return cls({model.spec: model})

    def of(self, spec: ModelSpec) -> LanguageModel:
        """The model of this spec. Raises `ModelError` when it cannot be loaded, or its chat template is another."""
        with LOADING:
            plain = without_template(spec)
            if plain not in self._loaded:
                self._loaded[plain] = self._usable(plain)
            if spec.text.template:
                require_template(spec, self._loaded[plain].tokenizer)
            return self._loaded[plain]

    def _usable(self, spec: ModelSpec) -> LanguageModel:
        """The model, loaded now. A chat template that cannot be used is told here, before anything is trained."""
        plain = spec.model_copy(update={"middle": False})
        loaded = ENGINES[spec.engine](plain, self.activations)
        model = MiddleModel(spec, loaded) if spec.middle else loaded
        if spec.text.prompt == "chat":
            require_usable(spec, model.tokenizer)
        return model


def load_model(spec: ModelSpec) -> LanguageModel:
    """One model, for a command that needs no other. Raises `ModelError`."""
    return Models().of(spec)
