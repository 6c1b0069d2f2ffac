"""The base model with its LoRA: loaded once per process, frozen but for the LoRA factors.

transformers and PEFT enter the package here, in `base_model` and in `lora_targets`, and nowhere else.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.pytorch_utils import Conv1D

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.ranks import leading, of_rank, pairs, rank_of, trailing
from fccl.errors import ModelError
from fccl.model.base_model import first_line
from fccl.model.encoding import Batch
from fccl.model.lora_targets import linear_names, targets
from fccl.model.losses import target_log_probs, target_log_probs_of
from fccl.specs import ModelSpec, named_seed

# Models whose logits are exactly the output embeddings times the last hidden state: these need logits only where a loss
# does.
_PLAIN_HEADS = frozenset({"gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "opt", "phi", "qwen2", "qwen3"})


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model with one LoRA adapter. Always in evaluation mode: no dropout, so policy and reference
    agree.

    `load` puts an adapter in, `adapter` takes it out; `response_log_probs` is the one forward pass that training and
    evaluation use.
    """

    spec: ModelSpec
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    factors: Mapping[str, nn.Parameter]  # by PEFT's saved names, sorted
    device: torch.device
    made_of: tuple[str, ...] = ()  # the base model, and the adapters that were folded into it before

    @property
    def pad_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @property
    def base(self) -> PreTrainedModel:
        """The transformers model, its target modules wrapped by PEFT."""
        return self.model.get_base_model()

    def load(self, adapter: Adapter) -> None:
        """Copy an adapter's values in. Of one of higher rank the first directions go into the factors, the others into
        the frozen base weights.

        Whatever was loaded before leaves no trace. Raises `AdapterError` when the adapter does not fit this model.
        """
        of_rank(self._form, max(self.spec.lora_r, rank_of(adapter.form))).require(adapter.form)
        own = leading(adapter, self.spec.lora_r)
        with torch.no_grad():
            self._frozen.hold(trailing(adapter, self.spec.lora_r))
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
        """A is drawn as PEFT draws it (Kaiming uniform, bound 1/sqrt(fan-in)) but from a named seed; B is zero, so the
        model is the base.
        """
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

        Returns `(log_probs, mask)`, both (B, T-1): entry t speaks of token t+1; zero and false where that is no
        response token. No attention mask is passed: rows are padded on the right, and a causal model's real tokens
        never look there.
        """
        input_ids = batch.input_ids.to(self.device)
        mask = batch.response_mask[:, 1:].to(self.device)
        targets = input_ids[:, 1:][mask]
        if self.base.config.model_type in _PLAIN_HEADS:
            hidden = getattr(self.base, self.base.base_model_prefix)(
                input_ids=input_ids, use_cache=False
            ).last_hidden_state
            found = target_log_probs_of(
                self.base.get_output_embeddings(), hidden[:, :-1][mask], targets, self.base.config.vocab_size
            )
        else:
            found = target_log_probs(self.base(input_ids=input_ids, use_cache=False).logits[:, :-1][mask], targets)
        return torch.zeros(mask.shape, dtype=torch.float32, device=self.device).masked_scatter(mask, found), mask


@dataclass
class _FrozenDirections:
    """The directions that stand behind those that are trained: `scale` B A, added to the base weights of the target
    modules.

    Always to the weights as they were at first, of which a copy is made once there is something to add. In float64 on
    one thread, rounded once: the same directions give the same bits, whatever stood there before and whatever number of
    threads the process has.
    """

    model: PeftModel
    scale: float
    _plain: dict[str, Tensor] = field(default_factory=dict)  # the weights without them, by the name of A
    _held: tuple[Adapter | None, ...] = (None,)  # what is in the weights; empty while that is not certain

    def hold(self, directions: Adapter | None) -> None:
        """Put these in the place of those that are there. Costs little when they are the same.

        Call it without gradients.
        """
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
            layer.weight.copy_(
                torch.add(plain.double(), product.T if isinstance(layer, Conv1D) else product, alpha=self.scale)
            )

    def _base(self, name: str) -> nn.Linear | Conv1D:
        """The module whose A has this name, under PEFT's wrapper."""
        layer: nn.Linear | Conv1D = self.model.get_submodule(name.partition(".lora_A.")[0]).base_layer
        return layer


def _same_bits(one: Adapter | None, other: Adapter | None) -> bool:
    if one is None or other is None:
        return one is other
    alike = ((tensor.view(torch.int32), other.tensors[name].view(torch.int32)) for name, tensor in one.tensors.items())
    return one.form == other.form and all(torch.equal(mine, theirs) for mine, theirs in alike)


def _with_lora(spec: ModelSpec, base: PreTrainedModel) -> PeftModel:
    """The model under PEFT. GPT-2's `Conv1D` keeps its weight as (in, out), which PEFT calls `fan_in_fan_out`."""
    config = LoraConfig(
        r=spec.lora_r,
        lora_alpha=spec.lora_alpha,
        target_modules=targets(spec, base),
        fan_in_fan_out=any(
            isinstance(module, Conv1D) for module in base.modules()
        ),  # the layers of one model are all of one kind
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    names = ", ".join(name for name, reason in linear_names(base).items() if not reason)
    try:
        return cast(PeftModel, get_peft_model(base, config))
    except ValueError as error:  # a kind of layer or of model that PEFT has no LoRA for
        hint = f"its linear layers are {names}: name those that PEFT can put a LoRA on with --lora-targets"
        raise ModelError(
            f"LORA_TARGETS={spec.lora_targets}: {spec.name} takes no LoRA there ({first_line(error)})", hint=hint
        ) from error


@contextlib.contextmanager
def cpu_threads(count: int) -> Any:
    """Let torch use `count` threads inside the block; 0 leaves it alone. The last bits of sums depend on this."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
