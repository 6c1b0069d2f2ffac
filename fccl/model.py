"""The base model with its LoRA: loaded once per process, frozen but for the LoRA factors.

transformers and PEFT enter the package here and nowhere else. What cannot be loaded is a `ModelError` that names the ways out.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from fccl.adapter import Adapter, Form
from fccl.encoding import Batch
from fccl.errors import ModelError
from fccl.lora import first, of_rank, pairs, rank_of, rest
from fccl.losses import target_log_probs, target_log_probs_of
from fccl.specs import ModelSpec, named_seed

BUILTIN_MODEL = "builtin:micro"
HUB_TIMEOUT_S = 5.0
_WAYS_OUT = (
    "give a local folder with --model-name, download it first where there is a network (`hf download NAME`), "
    "or use --model-name builtin:micro, which needs none"
)
# Models whose logits are exactly the output embeddings times the last hidden state: these need logits only where a loss does.
_PLAIN_HEADS = frozenset({"gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "opt", "phi", "qwen2", "qwen3"})


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with one LoRA adapter. Always in evaluation mode: no dropout, so policy and reference agree.

    `load` puts an adapter in, `adapter` takes it out; `response_log_probs` is the one forward pass that training and evaluation use.
    """

    spec: ModelSpec
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    factors: Mapping[str, nn.Parameter]  # by PEFT's saved names, sorted
    device: torch.device

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @property
    def base(self) -> PreTrainedModel:
        """The transformers model, its target modules wrapped by PEFT."""
        return self.model.get_base_model()

    def load(self, adapter: Adapter) -> None:
        """Copy an adapter's values in. Of one of higher rank the first directions go into the factors, the others into the frozen base weights.

        Whatever was loaded before leaves no trace. Raises `AdapterError` when the adapter does not fit this model.
        """
        of_rank(self._form, max(self.spec.lora_r, rank_of(adapter.form))).require(adapter.form)
        own = first(adapter, self.spec.lora_r)
        with torch.no_grad():
            self._frozen.hold(rest(adapter, self.spec.lora_r))
            for name, parameter in self.factors.items():
                parameter.copy_(own.tensors[name])

    def adapter(self) -> Adapter:
        """A copy of the LoRA factors as they are now. Raises `AdapterError` when they are not finite."""
        return Adapter({name: parameter.detach().float().cpu().clone() for name, parameter in self.factors.items()})

    @cached_property
    def _form(self) -> Form:
        return Form({name: tuple(parameter.shape) for name, parameter in self.factors.items()})

    @cached_property
    def _frozen(self) -> _FrozenDirections:
        return _FrozenDirections(self.model, self.spec.lora_alpha / self.spec.lora_r)

    def initial_adapter(self, seed: int) -> Adapter:
        """A is drawn as PEFT draws it (Kaiming uniform, bound 1/sqrt(fan-in)) but from a named seed; B is zero, so the model is the base."""
        draw = torch.Generator().manual_seed(named_seed(seed, "lora"))
        tensors = {}
        for name, parameter in self.factors.items():
            tensor = torch.zeros(parameter.shape)
            if "lora_A" in name:
                bound = 1 / math.sqrt(parameter.shape[1])
                tensor.uniform_(-bound, bound, generator=draw)
            tensors[name] = tensor
        return Adapter(tensors)

    def response_log_probs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """log p of every response token given the tokens before it.

        Returns `(log_probs, mask)`, both (B, T-1): entry t speaks of token t+1; zero and false where that is no response token.
        No attention mask is passed: rows are padded on the right, and a causal model's real tokens never look there.
        """
        input_ids = batch.input_ids.to(self.device)
        mask = batch.response_mask[:, 1:].to(self.device)
        targets = input_ids[:, 1:][mask]
        if self.base.config.model_type in _PLAIN_HEADS:
            hidden = getattr(self.base, self.base.base_model_prefix)(input_ids=input_ids, use_cache=False).last_hidden_state
            found = target_log_probs_of(self.base.get_output_embeddings(), hidden[:, :-1][mask], targets, self.base.config.vocab_size)
        else:
            found = target_log_probs(self.base(input_ids=input_ids, use_cache=False).logits[:, :-1][mask], targets)
        return torch.zeros(mask.shape, dtype=torch.float32, device=self.device).masked_scatter(mask, found), mask


@dataclass
class _FrozenDirections:
    """The directions that stand behind those that are trained: `scale` B A, added to the base weights of the target modules.

    Always to the weights as they were at first, of which a copy is made once there is something to add. In float64 on one thread, rounded once: the
    same directions give the same bits, whatever stood there before and whatever number of threads the process has.
    """

    model: PeftModel
    scale: float
    _plain: dict[str, Tensor] = field(default_factory=dict)  # the weights without them, by the name of A
    _held: tuple[Adapter | None, ...] = (None,)  # what is in the weights; empty while that is not certain

    def hold(self, directions: Adapter | None) -> None:
        """Put these in the place of those that are there. Costs little when they are the same. Call it without gradients."""
        if self._held and _same_bits(self._held[0], directions):
            return
        self._held = ()
        if directions is None:
            for name, plain in self._plain.items():
                self._base(name).weight.copy_(plain)
        else:
            with cpu_threads(1):
                self._add(directions)
        self._held = (directions,)

    def _add(self, directions: Adapter) -> None:
        for pair in pairs(directions.form):
            layer = self._base(pair.a)
            plain = self._plain.setdefault(pair.a, layer.weight.detach().cpu().clone())
            product = directions.tensors[pair.b].double() @ directions.tensors[pair.a].double()
            layer.weight.copy_(torch.add(plain.double(), product.T if isinstance(layer, Conv1D) else product, alpha=self.scale))

    def _base(self, name: str) -> nn.Linear | Conv1D:
        """The module whose A has this name, under PEFT's wrapper."""
        layer: nn.Linear | Conv1D = self.model.get_submodule(name.partition(".lora_A.")[0]).base_layer
        return layer


def _same_bits(one: Adapter | None, other: Adapter | None) -> bool:
    if one is None or other is None:
        return one is other
    alike = ((tensor.view(torch.int32), other.tensors[name].view(torch.int32)) for name, tensor in one.tensors.items())
    return one.form == other.form and all(torch.equal(mine, theirs) for mine, theirs in alike)


def load_model(spec: ModelSpec) -> LanguageModel:
    """Load the base model and put a fresh LoRA on it. Raises `ModelError`."""
    _quiet()
    base, tokenizer = _load_base(spec.name)
    _check_context(base, spec)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"{spec.name}: its tokenizer has no end-of-text token", hint="use a causal language model's own tokenizer")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = get_peft_model(base, _lora_config(spec, base))
    factors = {
        name.replace(".default", ""): parameter.requires_grad_(True) for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return LanguageModel(spec, model.to(device).eval(), tokenizer, dict(sorted(factors.items())), device)


def base_path(name: str) -> str:
    """What transformers is to load: the folder of the built-in model, or the name as it is."""
    if name == BUILTIN_MODEL:
        return str(resources.files("fccl").joinpath("assets", "micro"))
    if name.startswith("builtin:"):
        raise ModelError(f"{name}: there is no such built-in model", hint=f"use {BUILTIN_MODEL}")
    return name


def _load_base(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    path = base_path(name)
    local = Path(path).is_dir()
    if not local and (path.startswith((".", "/", "~")) or path.count("/") > 1):
        raise ModelError(f"{name}: there is no such folder", hint=_WAYS_OUT)
    try:
        return _from_pretrained(path, offline=True)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError and more for one and the same: not loadable
        if local:
            raise ModelError(
                f"{name}: the folder holds no causal language model that can be loaded ({_first_line(error)})", hint=_WAYS_OUT
            ) from error
    _require_on_hub(name)
    try:
        return _from_pretrained(path, offline=False)
    except Exception as error:
        raise ModelError(f"{name}: cannot be loaded ({_first_line(error)})", hint=_WAYS_OUT) from error


def _from_pretrained(path: str, offline: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=offline)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=offline)
    return model, tokenizer


def _require_on_hub(name: str) -> None:
    """Ask the hub once, with a deadline: transformers itself would retry for most of a minute."""
    try:
        HfApi().model_info(name, timeout=HUB_TIMEOUT_S)
    except RepositoryNotFoundError as error:
        raise ModelError(f"{name}: neither a local folder nor a model that the hub shows you", hint=_WAYS_OUT) from error
    except Exception as error:  # no route, no name, a proxy's refusal, a wrong name: each with a class of its own
        raise ModelError(f"{name}: not in the local cache, and the hub cannot be asked ({_first_line(error)})", hint=_WAYS_OUT) from error


def _check_context(base: PreTrainedModel, spec: ModelSpec) -> None:
    context = getattr(base.config, "max_position_embeddings", None)
    if context and spec.max_length > context:
        raise ModelError(
            f"MAX_LENGTH={spec.max_length} is more than the {context} positions of {spec.name}", hint=f"use --max-length {context} or less"
        )


def _lora_config(spec: ModelSpec, base: PreTrainedModel) -> LoraConfig:
    """The LoRA of this model. GPT-2's `Conv1D` keeps its weight as (in, out), which PEFT calls `fan_in_fan_out`."""
    targets = _targets(spec, base)
    # PEFT chooses by itself for "auto" (None) and "all-linear"; either way the layers of one model are all of one kind.
    conv = any(isinstance(module, Conv1D) for module in base.modules())
    return LoraConfig(
        r=spec.lora_r, lora_alpha=spec.lora_alpha, target_modules=targets, fan_in_fan_out=conv, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM"
    )


def _targets(spec: ModelSpec, base: PreTrainedModel) -> list[str] | str | None:
    if spec.lora_targets == "all-linear":
        return "all-linear"
    head = base.get_output_embeddings()
    linear = {name.rsplit(".", 1)[-1] for name, module in base.named_modules() if isinstance(module, nn.Linear | Conv1D) and module is not head}
    if spec.lora_targets == "auto":
        from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN

        known = KNOWN.get(base.config.model_type)
        return list(known) if known else "all-linear"
    wanted = [name.strip() for name in spec.lora_targets.split(",") if name.strip()]
    for name in wanted:
        if name not in linear:
            raise ModelError(
                f"LORA_TARGETS={spec.lora_targets}: {spec.name} has no module {name!r}",
                hint=f"it has {', '.join(sorted(linear))}; or use auto or all-linear",
            )
    return wanted


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _quiet() -> None:
    """No advice and no bars from the libraries: the screen is the user's."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*(fan_in_fan_out|is_gradient_checkpointing).*")


@contextlib.contextmanager
def cpu_threads(count: int) -> Any:
    """Let torch use `count` threads inside the block; 0 leaves it alone. The last bits of sums depend on this."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
