"""The memory that training takes, before it is tried: an upper estimate, and what this machine has.

Of a transformer with L layers of width H and a vocabulary of V, whose P weights are in float32, a step over T tokens:

    bytes = process + 4 P + 4 T (20 L H + 2 V)

A layer keeps about 20 numbers of its width for every token until the backward pass, the head its logits and their
gradient. docs/docker.md has what GPT-2 was measured to take; the estimate is above it, by a fifth at most.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig

from fccl.model.base_model import anywhere
from fccl.model.language_model import LanguageModel

PROCESS = 300 * 2**20  # Python and its libraries
_FLOAT = 4
_KEPT, _LOGITS = 20, 2
_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container


@dataclass(frozen=True)
class Shape:
    """The sizes of a transformer."""

    layers: int
    width: int
    vocabulary: int
    parameters: int

    def training_bytes(self, tokens: int) -> int:
        """The memory of a process that trains on so many tokens in a step."""
        each = _KEPT * self.layers * self.width + _LOGITS * self.vocabulary
        return PROCESS + _FLOAT * (self.parameters + tokens * each)


def shape_of(model: LanguageModel) -> Shape:
    """The sizes of a model that is loaded; weights that are shared count once."""
    config = anywhere(
        model.made_of[0], lambda path, offline: AutoConfig.from_pretrained(path, local_files_only=offline)
    )
    weights = {tensor.data_ptr(): tensor.numel() for tensor in model.weights().values()}
    return Shape(config.num_hidden_layers, config.hidden_size, config.vocab_size, sum(weights.values()))


def own_memory() -> int:
    """The bytes of memory that this machine can train in: of its GPU where it has one, else of the machine or of the
    container around this process.
    """
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[1])
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(whole, limit_of(_LIMIT, whole))


def limit_of(file: Path, otherwise: int) -> int:
    """The limit that a control group's file names; `otherwise` where there is none."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return otherwise
