"""The form in which a model reads conversations: what `auto` stands for, and whether a model can keep to a task's."""

from __future__ import annotations

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from fccl.errors import ModelError
from fccl.model.base_model import base_path, load_base, quiet
from fccl.model.chat import Chat
from fccl.model.chat_template import template_of, template_sha256
from fccl.specs import ModelSpec, PromptFormat

_LEAST_LENGTH = 8  # tokens that any model reads


def usual_prompt_format(name: str) -> PromptFormat:
    """The form that `PROMPT_FORMAT=auto` stands for: chat where the model's tokenizer has a chat template.

    Raises `ModelError` when the model cannot be had.
    """
    if name.startswith("builtin:"):
        return "plain"
    return "chat" if template_of(_read_tokenizer(name)) else "plain"


def with_template(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase) -> ModelSpec:
    """The spec that names the chat template, so that every client can compare; itself in the plain form."""
    if spec.text.prompt == "plain":
        return spec
    text = spec.text.model_copy(update={"template": template_sha256(tokenizer)})
    return spec.model_copy(update={"text": text})


def without_template(spec: ModelSpec) -> ModelSpec:
    """The spec of the same model whatever its chat template."""
    return spec.model_copy(update={"text": spec.text.model_copy(update={"template": ""})})


def require_template(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises `ModelError` unless the tokenizer has the chat template that the spec names."""
    if spec.text.template != template_sha256(tokenizer):
        raise ModelError(
            f"the chat template of {spec.name} here is another than the run's",
            hint="use the tokenizer that the server has; all have to train on the same text",
        )


def require_usable(spec: ModelSpec, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises `ModelError` when the template of this tokenizer cannot write or mask the chats that the spec wants."""
    Chat(tokenizer, spec.text.learn).require_usable()


def _read_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The model's tokenizer, without its weights where it lies beside them."""
    quiet()
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base_path(name), local_files_only=True)
    except Exception:  # it has to be fetched, is the base model's under an adapter, or loading the model says why not
        return load_base(name, _LEAST_LENGTH).tokenizer
    return found
