"""The base model and its tokenizer: found, checked, loaded, the adapters of a LoRA checkpoint folded in.

A checkpoint that PEFT has written (`adapter_config.json`) is its base model with the adapter merged, so that its loss
is the checkpoint's. A model that would be loaded as something else than it is ends in a `ModelError` with a hint. Such
are quantised weights, missing weights, token ids that the model does not embed.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, cast

from fccl.model import peft_alone  # isort: skip # noqa: F401 - before PEFT
import torch
import transformers
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.peft_utils import find_adapter_config_file

from fccl.display.plain_text import printable
from fccl.errors import ModelError
from fccl.presets import BUILTIN_MODEL

HUB_TIMEOUT_S = 5.0
WAYS_OUT = (
    "give a local folder with --model-name, download it first where there is a network (`hf download NAME`), "
    "or use --model-name builtin:micro, which needs none"
)
_PLAIN = "merge it where it was trained (`merge_and_unload()`, then `save_pretrained`) and name that folder"
_UNQUANTISED = (
    "use the same model with float weights; for an adapter that was trained on a quantised model (QLoRA), "
    "write the name of the float one into base_model_name_or_path of its adapter_config.json"
)
_WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
_MOST_ADAPTERS = 8  # one on top of the other
_SNAPSHOT = re.compile(r"models--([\w.-]+)--([\w.-]+)/snapshots/[0-9a-f]+/?$")

Read = TypeVar("Read")


@dataclass(frozen=True)
class Base:
    """A model without adapters, and its tokenizer.

    `adapters` names those that were folded into it, the innermost first.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str  # of the innermost model
    adapters: tuple[str, ...] = ()


def load_base(name: str, max_length: int) -> Base:
    """Load a model in float32 that reads `max_length` tokens. Raises `ModelError`."""
    quiet()
    base = _load(name, ())
    _require_context(base.model, name, max_length)
    _require_embedded(base, name)
    if base.tokenizer.pad_token_id is None:
        base.tokenizer.pad_token = base.tokenizer.eos_token
    return base


def base_path(name: str) -> str:
    """The name that transformers loads: the folder of the built-in model, or the name as it is."""
    if name == BUILTIN_MODEL:
        return str(resources.files("fccl").joinpath("assets", "micro"))
    if name.startswith("builtin:"):
        raise ModelError(f"{name}: there is no such built-in model", hint=f"use {BUILTIN_MODEL}")
    return name


def public_name(name: str) -> str | None:
    """The name under which others can load a model: a hub name, also of a folder in the hub's cache, or a built-in one.

    None for a folder of this machine: its path means nothing elsewhere, or another model.
    """
    if found := _SNAPSHOT.search(os.path.realpath(name)):
        return f"{found[1]}/{found[2]}"
    return name if name.startswith("builtin:") or not (_is_path(name) or Path(name).is_dir()) else None


def quiet() -> None:
    """No advice and no bars from the libraries: the screen is the user's."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings(
        "ignore", message=".*(fan_in_fan_out|is_gradient_checkpointing|tied weights|tie_word_embeddings).*"
    )


def first_line(error: Exception) -> str:
    """The message of a library's error, in one line."""
    text = str(error).strip()
    if not text or isinstance(error, KeyError):  # whose message is the key alone
        text = f"{type(error).__name__} {text}".strip()
    return printable(text.splitlines()[0], 200)


def _load(name: str, above: tuple[str, ...]) -> Base:
    """A model by its name; `above` are the adapters that stand on it."""
    return anywhere(name, lambda path, offline: _from(name, path, above, offline))


def anywhere(name: str, read: Callable[[str, bool], Read]) -> Read:
    """The answer of `read` on a model's files: those of the folder or of the local cache, else those on the hub.

    `read` gets the path that transformers loads, and whether it must do without a network. Raises `ModelError`.
    """
    path = base_path(name)
    local = Path(path).is_dir()
    if not local and _is_path(path):
        raise ModelError(f"{name}: there is no such folder", hint=WAYS_OUT)
    try:
        return read(path, True)
    except ModelError:
        raise
    except Exception as error:  # transformers raises OSError, ValueError, KeyError and more for one and the same
        if local:
            raise ModelError(
                f"{name}: the folder holds no causal language model that can be loaded ({first_line(error)})",
                hint=WAYS_OUT,
            ) from error
    _require_on_hub(name)
    try:
        return read(path, False)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{name}: cannot be loaded ({first_line(error)})", hint=WAYS_OUT) from error


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def _from(name: str, path: str, above: tuple[str, ...], offline: bool) -> Base:
    found = find_adapter_config_file(path, local_files_only=offline)
    if found is not None:
        return _checkpoint(name, path, json.loads(Path(found).read_text("utf-8")), above, offline)
    _refuse_quantised(name, AutoConfig.from_pretrained(path, local_files_only=offline).to_dict())
    tokenizer = _base_tokenizer(name, path, offline)
    model, info = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, local_files_only=offline, output_loading_info=True
    )
    _refuse_incomplete(name, info)
    return Base(model, tokenizer, name)


def _base_tokenizer(name: str, path: str, offline: bool) -> PreTrainedTokenizerBase:
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, local_files_only=offline)
    except Exception as error:  # as many classes as there are ways for a tokenizer to be damaged
        if not Path(path).is_dir():
            raise
        raise ModelError(
            f"{name}: its tokenizer cannot be loaded ({first_line(error)})",
            hint="save the tokenizer into the folder again (`tokenizer.save_pretrained`)",
        ) from error
    return found


def _require_on_hub(name: str) -> None:
    """Ask the hub once, with a deadline: transformers itself would retry for most of a minute."""
    try:
        HfApi().model_info(name, timeout=HUB_TIMEOUT_S)
    except RepositoryNotFoundError as error:
        raise ModelError(f"{name}: neither a local folder nor a model that the hub shows you", hint=WAYS_OUT) from error
    except Exception as error:  # no route, no name, a proxy's refusal, a wrong name: each with a class of its own
        raise ModelError(
            f"{name}: not in the local cache, and the hub cannot be asked ({first_line(error)})", hint=WAYS_OUT
        ) from error


def _refuse_quantised(name: str, config: Mapping[str, Any]) -> None:
    for part in (config, config.get("text_config")):
        found = part.get("quantization_config") if isinstance(part, Mapping) else None
        if found:
            method = found.get("quant_method") if isinstance(found, Mapping) else None
            raise ModelError(
                f"{name}: its weights are quantised ({printable(str(method or 'unnamed'), 40)}), LoRA needs float "
                "weights",
                _UNQUANTISED,
            )


def _refuse_incomplete(name: str, info: Mapping[str, Any]) -> None:
    """transformers would draw what is missing at random, in silence."""
    wrapped = [
        key
        for key in info["unexpected_keys"]
        if ".lora_" in key or ".base_layer." in key or key.startswith("base_model.")
    ]
    if wrapped:
        raise ModelError(
            f"{name}: its weights are those of a model still wrapped by PEFT (there is {printable(min(wrapped), 100)})",
            hint=_PLAIN,
        )
    missing = sorted(map(str, (*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"]))))
    if missing:
        many = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(
            f"{name}: its files lack weights of a causal language model: {missing[0]}{many}",
            hint="download or save it again",
        )


def _checkpoint(name: str, path: str, config: Mapping[str, Any], above: tuple[str, ...], offline: bool) -> Base:
    """The base model of an adapter with the adapter folded in."""
    _refuse_unfit(name, path, config)
    if name in above or len(above) >= _MOST_ADAPTERS:
        raise ModelError(
            f"{name}: its adapter_config.json names adapters as base models in a circle, or too many", hint=_PLAIN
        )
    try:
        base = _load(config["base_model_name_or_path"], (*above, name))
    except ModelError as error:
        raise ModelError(f"{name} is an adapter, its base model cannot be had: {error}", hint=error.hint) from error
    has_tokenizer = not Path(path).is_dir() or any((Path(path) / file).exists() for file in _TOKENIZER)
    tokenizer = _own_tokenizer(path, offline) if has_tokenizer else None
    if tokenizer is None and has_tokenizer and Path(path).is_dir():
        raise ModelError(
            f"{name}: its tokenizer cannot be loaded",
            hint="save the tokenizer again, or remove its files to use the base model's",
        )
    return Base(
        _folded(name, path, base.model, offline), tokenizer or base.tokenizer, base.name, (*base.adapters, name)
    )


def _refuse_unfit(name: str, path: str, config: Mapping[str, Any]) -> None:
    if any(next(Path(path).glob(pattern), None) for pattern in _WEIGHTS):
        way = "name a folder that holds one of them; without its adapter_config.json this one is the whole model"
        raise ModelError(f"{name}: the folder holds a whole model and an adapter, either may be meant", hint=way)
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise ModelError(
            f"{name}: its adapter is for {printable(str(config['task_type']), 40)}, no causal language model",
            hint=WAYS_OUT,
        )
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(
            f"{name}: its adapter_config.json names no base model",
            hint="write its name into base_model_name_or_path, or export it with --merge and name that folder",
        )


def _own_tokenizer(path: str, offline: bool) -> PreTrainedTokenizerBase | None:
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, local_files_only=offline)
    except Exception:  # as many classes as there are ways for a tokenizer not to be there
        return None
    return found


def _folded(name: str, path: str, base: PreTrainedModel, offline: bool) -> PreTrainedModel:
    """Merge, and see that the model still says what base and adapter said together."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message="(?s).*missing adapter keys.*")
            wrapped = _wrapped(path, base, offline)
        if not isinstance(wrapped.base_model, BaseTuner):
            kind = wrapped.peft_config["default"].peft_type
            raise ModelError(
                f"{name}: a {getattr(kind, 'value', kind)} adapter cannot be merged into its base model", hint=WAYS_OUT
            )
        before = _logits(wrapped)
        tied = _untied(base)
        model: PreTrainedModel = wrapped.merge_and_unload(safe_merge=True)
        after = _logits(model)
    except ModelError:
        raise
    except Exception as error:  # PEFT's own, torch's for shapes that do not fit, safetensors' for a damaged file
        raise ModelError(
            f"{name}: its adapter cannot be merged into the base model ({first_line(error)})", hint=_PLAIN
        ) from error
    if not torch.allclose(before, after, rtol=1e-3, atol=1e-3 * float(before.abs().max())):
        raise ModelError(f"{name}: merged into the base model, its adapter says something else", hint=_PLAIN)
    if tied:
        _tie_if_equal(model)
    if hasattr(model, "peft_config"):
        del model.peft_config  # it is a plain model again, which takes a LoRA as any other does
    return model


def _wrapped(path: str, base: PreTrainedModel, offline: bool) -> PeftModel:
    """The base model under PEFT, its embeddings as many as the adapter brings, where it was trained with more
    tokens."""
    from peft.utils import load_peft_weights

    weights = load_peft_weights(path, device="cpu", **({"local_files_only": True} if offline else {}))
    rows = _embedded_rows(weights, base)
    if rows != base.get_input_embeddings().weight.shape[0]:
        base.resize_token_embeddings(rows, mean_resizing=False)
    return PeftModel.from_pretrained(base, path, **({"local_files_only": True} if offline else {})).eval()


def _embedded_rows(weights: Mapping[str, Tensor], base: PreTrainedModel) -> int:
    """The rows of whole embeddings among an adapter's weights, else those that the base model has."""
    ends = [module for module in (base.get_input_embeddings(), base.get_output_embeddings()) if module is not None]
    names = [name for name, module in base.named_modules() if any(module is end for end in ends)]
    for key, tensor in weights.items():
        plain = key.replace(".base_layer", "").replace(".modules_to_save", "").removeprefix("base_model.model.")
        if tensor.ndim == 2 and any(plain == f"{name}.weight" for name in names):
            return tensor.shape[0]
    return int(ends[0].weight.shape[0])


@torch.no_grad()
def _logits(model: nn.Module) -> Tensor:
    model.eval()
    found: Tensor = model(input_ids=torch.arange(8)[None] % 5 + 1, use_cache=False).logits
    return found


def _untied(model: PreTrainedModel) -> bool:
    """Give the head weights of its own, if it shares the embeddings': PEFT merges in place, which would change both.

    Returns whether it did.
    """
    embedding, head = (_innermost(module) for module in (model.get_input_embeddings(), model.get_output_embeddings()))
    if head is None or embedding is None or getattr(head, "weight", None) is not getattr(embedding, "weight", ()):
        return False
    head.weight = nn.Parameter(cast(Tensor, head.weight).detach().clone(), requires_grad=False)
    return True


def _innermost(module: nn.Module | None) -> nn.Module | None:
    """The module under PEFT's wrappers."""
    while module is not None:
        inner = getattr(module, "base_layer", None) or getattr(module, "original_module", None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner
    return None


def _tie_if_equal(model: PreTrainedModel) -> None:
    """Let embeddings and head share their weights again if they can; the configuration says whether they do."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    model.config.tie_word_embeddings = torch.equal(embedding.weight, head.weight)
    if model.config.tie_word_embeddings:
        head.weight = embedding.weight


def positions(config: Any) -> int | None:
    """The positions that a model of this configuration knows; None where it names none."""
    return next((found for key in _POSITIONS if isinstance(found := getattr(config, key, None), int)), None)


def _require_context(model: PreTrainedModel, name: str, max_length: int) -> None:
    if (context := positions(model.config)) and max_length > context:
        raise ModelError(
            f"MAX_LENGTH={max_length} is more than the {context} positions of {name}",
            hint=f"use --max-length {context} or less",
        )


def _require_embedded(base: Base, name: str) -> None:
    """Every id that the tokenizer can give must have its row in the embeddings and in the head."""
    tokenizer = base.tokenizer
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"{name}: its tokenizer has no end-of-text token", hint="use a causal language model's own tokenizer"
        )
    if len(tokenizer.get_vocab()) <= len(set(tokenizer.all_special_ids)):  # as transformers makes one of no files
        raise ModelError(
            f"{name}: its tokenizer has no token but {tokenizer.eos_token}, so all text would be nothing",
            hint="save the tokenizer's files beside the model's: tokenizer.save_pretrained(folder)",
        )
    ends: Sequence[Any] = (base.model.get_input_embeddings(), base.model.get_output_embeddings())
    rows = min(int(module.weight.shape[0]) for module in ends if module is not None)
    ids = {*tokenizer.get_vocab().values(), *(special for special in tokenizer.all_special_ids if special is not None)}
    if max(ids) >= rows:
        beyond = sum(each >= rows for each in ids)
        said = (
            f"{name}: its tokenizer has ids up to {max(ids)}, the model embeds {rows} ({beyond} "
            f"token{'s' * (beyond != 1)} without embedding)"
        )
        raise ModelError(
            said,
            hint="use the tokenizer that the model was trained with, or resize the model's embeddings and save it "
            "again",
        )
