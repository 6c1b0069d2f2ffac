"""The written-out GPT-2 over the tensors of a loaded one: nothing is copied, and the factors become one flat vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from fccl.model.gpt2 import Block, Factors, Gpt2, Linear, Norm

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


def is_plain_gpt2(config: GPT2Config) -> bool:
    """Whether a model of this configuration is what `fccl.model.gpt2` writes out."""
    plain = all(getattr(config, name, value) == value for name, value in _PLAIN.items())
    return config.model_type == "gpt2" and plain and not getattr(config, "add_cross_attention", False)


def gpt2_of(base: GPT2LMHeadModel, factors: FlatFactors, scale: float) -> Gpt2:
    """The written-out form of a transformers GPT-2 whose target modules PEFT has wrapped. `scale` is alpha / r."""
    views, gradients = factors.views(factors.values), factors.views(factors.gradient)
    names = {id(parameter): name for name, parameter in factors.parameters.items()}

    def linear(module: Any) -> Linear:
        if not hasattr(module, "base_layer"):
            return Linear(module.weight.detach(), module.bias.detach())
        a, b = (names[id(part["default"].weight)] for part in (module.lora_A, module.lora_B))
        lora = Factors(views[a], views[b], gradients[a], gradients[b], scale)
        return Linear(module.base_layer.weight.detach(), module.base_layer.bias.detach(), lora)

    def block(layer: Any) -> Block:
        attention, mlp = layer.attn, layer.mlp
        return Block(
            norm_1=_norm(layer.ln_1),
            qkv=linear(attention.c_attn),
            proj=linear(attention.c_proj),
            norm_2=_norm(layer.ln_2),
            up=linear(mlp.c_fc),
            down=linear(mlp.c_proj),
            heads=attention.num_heads,
        )

    body = base.transformer
    return Gpt2(
        tokens=body.wte.weight.detach(),
        positions=body.wpe.weight.detach(),
        blocks=[block(layer) for layer in body.h],
        norm=_norm(body.ln_f),
        head=base.lm_head.weight.detach(),
    )


def _norm(module: nn.LayerNorm) -> Norm:
    return Norm(module.weight.detach(), module.bias.detach(), module.eps)
