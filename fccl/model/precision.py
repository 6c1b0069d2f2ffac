"""Choices that a run makes once, by its machine: the precision of the frozen base, and the clients in one batch.

Here is also whether this process can keep to a precision that another chose.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from fccl.errors import ModelError
from fccl.model.base_model import first_line
from fccl.model.frozen_weight import Packed8
from fccl.specs import BasePrecision, ModelSpec

DTYPES: dict[BasePrecision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.float32}
_CLIENTS_ON_A_GPU = 8
_CLOSE = 0.05  # of the norm of a product of 32 numbers each; rounding to int8 gives 0.01


def own_device() -> torch.device:
    """The device that this process computes on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def usual_precision() -> BasePrecision:
    """The precision that `BASE_PRECISION=auto` stands for in this process."""
    return "bf16" if own_device().type == "cuda" else "fp32"


def usual_at_once() -> int:
    """The number of clients that `CLIENTS_AT_ONCE=auto` stands for in this process.

    A GPU waits for the launches of a small batch's kernels; a CPU has enough to do with one client's.
    """
    return _CLIENTS_ON_A_GPU if own_device().type == "cuda" else 1


def require_int8(spec: ModelSpec) -> None:
    """Raises `ModelError` when a task wants int8 products and this process cannot compute them."""
    if spec.base_precision == "int8" and (reason := _why_no_int8(own_device().type)):
        hint = "BASE_PRECISION=bf16 and fp32 run everywhere; the precision is the run's, so a new run is needed"
        raise ModelError(f"BASE_PRECISION=int8: {reason}", hint=hint)


def _why_no_int8(device: str) -> str:
    """The reason why this process has no int8 products, or nothing."""
    if device != "cpu":
        return "int8 products are computed on a CPU, and this process has a GPU"
    rows = torch.linspace(-1, 1, 32 * 32).view(32, 32).sin()
    try:
        found = Packed8.of(rows.T).product(rows)
    except Exception as error:  # a torch without oneDNN has no such operation; a processor may lack instructions
        return f"this machine's torch has no int8 products ({first_line(error)})"
    exact = rows @ rows.T
    return "" if float((found - exact).norm() / exact.norm()) < _CLOSE else "this machine's int8 products are wrong"


def int8_is_fast() -> bool:
    """Whether the processor has instructions for int8 products (VNNI or AMX): without, they are slower than fp32."""
    ask = getattr(torch.cpu, "get_capabilities", None)  # not in torch 2.6
    return ask is None or any(ask().get(name, False) for name in ("avx_vnni", "avx512_vnni", "amx_int8"))


def keep_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Keep a model's weights in this type. Its buffers stay: rotary frequencies need their 24 bits."""
    for weight in model.parameters():
        weight.data = weight.data.to(dtype)


def float32_head(head: nn.Module) -> Callable[[Tensor], Tensor]:
    """The output head, its logits float32 whatever its weights are: at -100 bfloat16 knows only steps of 0.5."""
    weight: Tensor = head.weight  # type: ignore[assignment]  # of a module that may be any
    bias: Tensor | None = getattr(head, "bias", None)
    if weight.dtype != torch.bfloat16 or hasattr(head, "base_layer"):  # the latter has a LoRA of its own
        return head
    wide = weight.detach().float()
    return lambda hidden: functional.linear(hidden.float(), wide, None if bias is None else bias.float())
