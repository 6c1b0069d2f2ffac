"""The identity of a model's weights, and of the arithmetic that works on them."""

from __future__ import annotations

import hashlib
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
import transformers

from fccl.model import gpt2, losses
from fccl.model.language_model import LanguageModel
from fccl.model.scoring import TOKENS_AT_ONCE


def weights_sha256(model: LanguageModel) -> str:
    """A hash of the base model's weights, its LoRA left out: a local folder's name says nothing of what is in it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.weights().items()):
        digest.update(f"{name}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def arithmetic(model: LanguageModel) -> dict[str, str]:
    """All but weights and input that the bits of a forward pass depend on: libraries, processor, threads, sizes."""
    device = model.device
    return {
        **_machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "engine": model.engine,
        "precision": model.spec.base_precision,
        "dtype": " ".join(sorted({str(tensor.dtype) for tensor in model.weights().values()})),
        "threads": str(torch.get_num_threads()),
        "sizes": f"{TOKENS_AT_ONCE} {losses.LOGITS_AT_ONCE} {gpt2.LOGITS_AT_ONCE}",
    }


@cache
def _machine() -> dict[str, str]:
    return {
        "torch": torch.__version__,
        "built": torch.__config__.show(),
        "transformers": transformers.__version__,
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {_model_of_processor()}",
    }


def _model_of_processor() -> str:
    """Linux's name of it; other systems have no such file."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line for line in lines if line.startswith("model name")), "")
    return ""
