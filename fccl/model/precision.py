"""Choices that a run makes once, by its machine: the precision of the frozen base, and the clients in one batch.

Here is also whether this process can keep to a precision that another chose.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from fccl.errors import ModelError
from fccl.extras import require_extra
from fccl.model.base_model import first_line
from fccl.model.bnb_layers import BNB
from fccl.model.frozen_weight import Packed8
from fccl.specs import BasePrecision, ModelSpec

# Of the weights that no precision rounds otherwise.
DTYPES: dict[BasePrecision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "int8": torch.float32,
    "bnb-int8": torch.float32,
    "bnb-nf4": torch.float32,
}
KEEPS_WEIGHTS: frozenset[BasePrecision] = frozenset({"fp32", "int8"})  # whose model has its file's weights in memory
_CLIENTS_ON_A_GPU = 8
_OTHERS = "BASE_PRECISION=bf16 and fp32 run everywhere; the precision is the run's, so a new run is needed"
_CLOSE = 0.05  # of the norm of a product of 32 numbers each; rounding to int8 gives 0.01
_NEAR: dict[BasePrecision, float] = {"bnb-int8": 0.05, "bnb-nf4": 0.2}  # of a matrix's norm; nf4's rounding gives 0.09


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


def require_precision(spec: ModelSpec) -> None:
    """Raises `ModelError` when this process cannot compute at a model's precision, `SettingsError` when a library is
    missing."""
    if spec.base_precision in BNB:
        require_bnb(spec)
    else:
        require_int8(spec.base_precision)


def require_bnb(spec: ModelSpec) -> None:
    """Raises `SettingsError` without bitsandbytes, `ModelError` for another engine or where its kernels do not work."""
    precision = spec.base_precision
    require_extra("bitsandbytes", f"BASE_PRECISION={precision}")
    if spec.engine == "gpt2":
        raise ModelError(f"ENGINE=gpt2 does not compute BASE_PRECISION={precision}", hint="use ENGINE=auto or generic")
    if reason := _why_no_bnb(precision):
        hint = f"{_OTHERS}; `python -m bitsandbytes` says more"
        raise ModelError(f"BASE_PRECISION={precision}: {reason}", hint=hint)


def _why_no_bnb(precision: BasePrecision) -> str:
    """The reason why bitsandbytes does not work in this process, or nothing."""
    matrix = torch.linspace(-1, 1, 64 * 64).view(64, 64).sin()
    try:
        found = BNB[precision](matrix, None).to(own_device()).matrix(torch.float32).cpu()
    except Exception as error:  # a build without this machine's kernels
        return f"bitsandbytes does not work here ({first_line(error)})"
    near = float((found - matrix).norm() / matrix.norm()) < _NEAR[precision]
    return "" if near else "this machine's bitsandbytes rounds wrongly"


def require_int8(precision: str) -> None:
    """Raises `ModelError` when int8 products are asked for and this process cannot compute them."""
    if precision == "int8" and (reason := _why_no_int8(own_device().type)):
        raise ModelError(f"BASE_PRECISION=int8: {reason}", hint=_OTHERS)


def _why_no_int8(device: str) -> str:
    """The reason why this process has no int8 products, or nothing."""
    if device != "cpu":
        return "int8 products are computed on a CPU, and this process has a GPU"
    rows = torch.linspace(-1, 1, 32 * 32).view(32, 32).sin()
    rows[0], rows[1] = 1, -1  # the largest sums: without VNNI or AMX pairs of products saturate at 16 bits
    try:
        found = Packed8.of(rows.T).product(rows)
    except Exception as error:  # a torch without oneDNN has no such operation; a processor may lack instructions
        return f"this machine's torch has no int8 products ({first_line(error)})"
    exact = rows @ rows.T
    close = (found - exact).norm(dim=1) < _CLOSE * exact.norm(dim=1)
    lacks = "" if int8_is_fast() else ": the processor has neither VNNI nor AMX"
    return "" if bool(close.all()) else f"this machine's int8 products are wrong{lacks}"


def int8_is_fast() -> bool:
    """Whether the processor has instructions for int8 products: VNNI or AMX."""
    ask = getattr(torch.cpu, "get_capabilities", None)  # not in torch 2.6
    return ask is None or any(ask().get(name, False) for name in ("avx_vnni", "avx512_vnni", "amx_int8"))


def int8_is_slow() -> bool:
    """Whether this process has int8 products, but computes them without such instructions."""
    return not int8_is_fast() and not _why_no_int8(own_device().type)


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
