"""The written-out GPT-2 over the tensors of a loaded one: nothing is copied, and the factors become one flat vector."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from fccl.errors import ModelError
from fccl.model.activations import Activations
from fccl.model.clipping import clipped
from fccl.model.encoding import Responses
from fccl.model.frozen_layers import FrozenLayers
from fccl.model.frozen_weight import FROZEN
from fccl.model.gpt2 import Attend, Backward, Block, Factors, Gpt2, Linear, Norm, attention
from fccl.model.gpt2_examples import by_example
from fccl.model.language_model import GPT2, EachLoss, Loss, LossAndGradient
from fccl.model.packing import Packed, pack
from fccl.model.peft_model import PeftLanguageModel, load_peft_model
from fccl.model.precision import require_precision
from fccl.model.variable_length import attention_by_starts, has_variable_length, takes_channels
from fccl.model.weights import arithmetic
from fccl.specs import BasePrecision, ModelSpec

_MODULES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")  # that may carry LoRA
_PLAIN = {"activation_function": "gelu_new", "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False}


@dataclass(frozen=True, eq=False)
class FlatFactors:
    """All LoRA factors in one vector, `values` (P,), and their gradients in another, (P,); both in the order of names.

    The parameters that it is made of become views of `values`: PEFT's model and the written-out one are always alike.
    """

    parameters: Mapping[str, nn.Parameter]  # by PEFT's saved names
    values: Tensor
    gradient: Tensor

    @classmethod
    def of(cls, parameters: Mapping[str, nn.Parameter]) -> FlatFactors:
        """Move these parameters into one vector."""
        ordered = {name: parameters[name] for name in sorted(parameters)}
        values = torch.cat([parameter.detach().reshape(-1) for parameter in ordered.values()])
        flat = cls(ordered, values, torch.zeros_like(values))
        for name, view in flat.views(values).items():
            ordered[name].data = view
        return flat

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector (P,) as the factors' tensors, by name."""
        sizes = [parameter.numel() for parameter in self.parameters.values()]
        parts = zip(self.parameters.items(), vector.split(sizes), strict=True)  # type: ignore[no-untyped-call]
        return {name: part.view(parameter.shape) for (name, parameter), part in parts}

    def without(self, factors: Collection[str] | None) -> Tensor | None:
        """True at the numbers of all factors but those named, (P,); None where these are all."""
        if factors is None or set(factors) >= set(self.parameters):
            return None
        found = torch.zeros_like(self.values, dtype=torch.bool)
        for name, part in self.views(found).items():
            part.fill_(name not in factors)
        return found


@dataclass(frozen=True)
class Gpt2LanguageModel(PeftLanguageModel):
    """GPT-2 whose training and scoring are written out: packed, without padding, logits or torch's graph.

    Loading, generation and export are the generic engine's, over the same weights and factors in memory. Sums over a
    response's tokens are float64: DPO takes small differences of large sums. `activations` keep what enters the lowest
    layer with LoRA.
    """

    engine: str = GPT2
    activations: Activations = field(default_factory=Activations)

    @cached_property
    def flat(self) -> FlatFactors:
        """All factors in one vector, and their gradients."""
        return FlatFactors.of(self.factors)

    @cached_property
    def written_out(self) -> Gpt2:
        """The forward and backward passes, over this model's own tensors."""
        scale = self.spec.lora_alpha / self.spec.lora_r
        return gpt2_of(cast(GPT2LMHeadModel, self.base), self.flat, scale, self.spec.base_precision)

    @torch.no_grad()
    def response_log_probs(self, examples: Sequence[Responses]) -> Tensor:
        """log p(response | prompt) of every response: (n, k) float64."""
        packed = pack(examples).to(self.device)
        found = self.written_out.log_probs(packed, self.entering(examples))
        return packed.sums(found).view(len(examples), -1)

    @torch.no_grad()
    def loss_and_gradient(
        self, examples: Sequence[Responses], loss: Loss, factors: Collection[str] | None = None
    ) -> LossAndGradient:
        """`loss` of the batch's log-probabilities (n, k) and its gradient."""
        packed, values = pack(examples).to(self.device), []

        def slopes(log_probs: Tensor) -> Tensor:
            value, per_response = _slopes(loss, packed.sums(log_probs).view(len(examples), -1))
            values.append(value)
            return per_response.reshape(-1)[packed.owners]

        self.flat.gradient.zero_()
        self.written_out.learn(packed, slopes, self.entering(examples))
        gradient = self.flat.views(self.flat.gradient.clone())
        return LossAndGradient(
            values[0], {name: part for name, part in gradient.items() if factors is None or name in factors}
        )

    @torch.no_grad()
    def clipped_sum(
        self, examples: Sequence[Responses], losses: EachLoss, clip: float, factors: Collection[str] | None = None
    ) -> Mapping[str, Tensor]:
        """The sum of the examples' clipped gradients, in one pass over the batch."""
        packed = pack(examples).to(self.device)
        gradients = self.flat.values.new_zeros(len(examples), len(self.flat.values))  # (E, P)

        def slopes(log_probs: Tensor) -> Tensor:
            sums = packed.sums(log_probs).view(len(examples), -1)  # (E, k)
            _, per_response = _slopes(lambda found: losses(found, range(len(examples))).sum(), sums)
            return per_response.reshape(-1)[packed.owners]

        by_example(self.written_out, gradients, packed).learn(packed, slopes, self.entering(examples))
        if (others := self.flat.without(factors)) is not None:
            gradients.masked_fill_(others, 0)
        total = clipped(gradients, clip)  # (P,)
        return {name: part for name, part in self.flat.views(total).items() if factors is None or name in factors}

    @cached_property
    def _frozen_layers(self) -> FrozenLayers:
        return FrozenLayers(self.written_out, self.activations)

    def entering(self, examples: Sequence[Responses]) -> Tensor | None:
        """The activations that enter the lowest layer with LoRA, (T, D); None where no layer is below it."""
        return self._frozen_layers.entering(examples, arithmetic(self)) if self.written_out.frozen else None


@torch.enable_grad()
def _slopes(loss: Loss, sums: Tensor) -> tuple[float, Tensor]:
    """The loss of log-probabilities (n, k), and its slope in each."""
    sums = sums.requires_grad_()
    value = loss(sums)
    (slope,) = torch.autograd.grad(value, sums, materialize_grads=True)
    return float(value.detach()), slope


def load_gpt2(spec: ModelSpec, activations: Activations | None = None) -> Gpt2LanguageModel:
    """Load a model for the written-out engine. Raises `ModelError` when it is no GPT-2, or cannot be had."""
    require_precision(spec)
    loaded = load_peft_model(spec)
    if not can_be_written_out(loaded):
        hint = "ENGINE=generic trains any model; this engine takes GPT-2 with LoRA on its attention and MLP layers"
        raise ModelError(f"ENGINE=gpt2: {spec.name} is not such a model", hint=hint)
    return written_out(loaded, activations)


def written_out(model: PeftLanguageModel, activations: Activations | None = None) -> Gpt2LanguageModel:
    """The same model in memory under the written-out engine. `activations` may be shared by models of any kind."""
    shared = {each.name: getattr(model, each.name) for each in fields(PeftLanguageModel) if each.name != "engine"}
    return Gpt2LanguageModel(**shared, activations=Activations() if activations is None else activations)


def can_be_written_out(model: PeftLanguageModel) -> bool:
    """Whether the written-out engine computes this model: a plain GPT-2 with LoRA where it has it."""
    config = model.base.config
    modules = {name.partition(".lora_")[0] for name in model.factors}
    return is_plain_gpt2(config) and all(module.endswith(_MODULES) for module in modules)


def is_plain_gpt2(config: GPT2Config) -> bool:
    """Whether a model of this configuration is what `fccl.model.gpt2` writes out."""
    plain = all(getattr(config, name, value) == value for name, value in _PLAIN.items())
    return config.model_type == "gpt2" and plain and not getattr(config, "add_cross_attention", False)


def gpt2_of(base: GPT2LMHeadModel, factors: FlatFactors, scale: float, precision: BasePrecision = "fp32") -> Gpt2:
    """The written-out form of a transformers GPT-2 whose target modules PEFT has wrapped. `scale` is alpha / r."""
    values, gradient = factors.views(factors.values), factors.views(factors.gradient)

    def lora(a: str, b: str) -> Factors:
        return Factors(values[a], values[b], gradient[a], gradient[b], scale)

    return gpt2_with_lora(base, factors.parameters, lora, precision)


def gpt2_with_lora(
    base: GPT2LMHeadModel,
    parameters: Mapping[str, nn.Parameter],
    lora_of: Callable[[str, str], Factors],
    precision: BasePrecision,
) -> Gpt2:
    """The same with factors from elsewhere: `lora_of` has those of a module, by the names of its A and B in PEFT.

    `parameters` are PEFT's own. Only the linear layers have the `precision`; all else is of the factors' type.
    """
    kind, frozen = next(iter(parameters.values())).dtype, FROZEN[precision]
    names = {id(parameter): name for name, parameter in parameters.items()}
    attend = attention_for(base.device, precision, base.config.n_embd // base.config.n_head)

    def linear(module: Any) -> Linear:
        if not hasattr(module, "base_layer"):
            return Linear(frozen(module.weight.detach(), module.bias.detach().to(kind)))
        a, b = (names[id(part["default"].weight)] for part in (module.lora_A, module.lora_B))
        plain = module.base_layer
        return Linear(frozen(plain.weight.detach(), plain.bias.detach().to(kind)), lora_of(a, b))

    def block(layer: Any) -> Block:
        around, mlp = layer.attn, layer.mlp
        return Block(
            norm_1=_norm(layer.ln_1, kind),
            qkv=linear(around.c_attn),
            proj=linear(around.c_proj),
            norm_2=_norm(layer.ln_2, kind),
            up=linear(mlp.c_fc),
            down=linear(mlp.c_proj),
            heads=around.num_heads,
            attend=attend,
        )

    return _whole(base, [block(layer) for layer in base.transformer.h], kind)


def _whole(base: GPT2LMHeadModel, blocks: Sequence[Block], kind: torch.dtype) -> Gpt2:
    """The model around its layers."""
    body, tied = base.transformer, base.lm_head.weight is base.transformer.wte.weight
    tokens = body.wte.weight.detach().to(kind)
    lowest = next((number for number, each in enumerate(blocks) if each.has_lora), 0)
    return Gpt2(
        tokens=tokens,
        positions=body.wpe.weight.detach().to(kind),
        frozen=blocks[:lowest],
        blocks=blocks[lowest:],
        norm=_norm(body.ln_f, kind),
        head=tokens if tied else base.lm_head.weight.detach().to(kind),
    )


def attention_for(device: torch.device, precision: BasePrecision, channels: int) -> Attend:
    """The attention for heads of so many channels: under bf16, torch's kernel for variable lengths where there is one.

    A batch with a mask, of pairs that share their prompts, has padded rows always.
    """
    if precision != "bf16" or not has_variable_length(device) or not takes_channels(channels):
        return attention

    def attend(qkv: Tensor, packed: Packed, heads: int, learn: bool) -> tuple[Tensor, Backward]:
        return (attention_by_starts if packed.mask is None else attention)(qkv, packed, heads, learn)

    return attend


def _norm(module: nn.LayerNorm, kind: torch.dtype) -> Norm:
    return Norm(module.weight.detach().to(kind), module.bias.detach().to(kind), module.eps)
