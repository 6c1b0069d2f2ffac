"""Reference log-probabilities of preference pairs: computed once, since the reference stays the same for all VA rounds.

Numbers that come from a cache are the bits that this process would compute. So their key holds all that they follow
from: the weights as they are loaded, the encoded pairs, how they are batched, and the arithmetic of this machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fccl.adapters.adapter import Adapter
from fccl.model.encoding import Responses
from fccl.model.language_model import LanguageModel
from fccl.model.weights import arithmetic, weights_sha256
from fccl.storage.cache import Cache
from fccl.training.objective import reference_log_probs

_VERSION = 3  # of the arithmetic in `reference_log_probs`: another way to compute it needs another number
_NUMBERS = np.dtype("<f8")  # exact for float32 too


@dataclass
class References:
    """Remembers log π_ref of every set of pairs: in memory, and for later processes in `cache`, if there is one."""

    cache: Cache | None = None
    _known: dict[str, Tensor] = field(default_factory=dict, init=False)

    def log_probs(
        self, model: LanguageModel, reference: Adapter, pairs: Sequence[Responses], batch_size: int
    ) -> Tensor:
        """`reference_log_probs` of these, (n, 2), computed unless they are known. May leave `reference` loaded."""
        spec = model.spec.model_dump(mode="json")
        key = _digest([_VERSION, spec, reference.sha256, _plain(pairs), batch_size, arithmetic(model)])
        if key not in self._known:
            self._known[key] = self._kept(key, model, reference, pairs, batch_size)
        return self._known[key]

    def _kept(
        self, key: str, model: LanguageModel, reference: Adapter, pairs: Sequence[Responses], batch_size: int
    ) -> Tensor:
        if self.cache is None:
            return reference_log_probs(model, reference, pairs, batch_size)
        model.load(reference)  # of a higher rank than the model's, a part of it stands in the weights
        name = f"reference log-probabilities {key} {weights_sha256(model)}"
        found = _read(self.cache.get(name), len(pairs))
        if found is None:
            found = reference_log_probs(model, reference, pairs, batch_size)
            self.cache.put(name, found.cpu().numpy().astype(_NUMBERS).tobytes())
        return found.to(model.device)


def _read(content: bytes | None, count: int) -> Tensor | None:
    """The (count, 2) numbers of a cache entry."""
    if content is None or len(content) != 2 * count * _NUMBERS.itemsize:
        return None
    return torch.from_numpy(np.frombuffer(content, _NUMBERS).reshape(count, 2).copy())


def _plain(pairs: Sequence[Responses]) -> list[list[object]]:
    return [[row.ids, row.prompt_length] for pair in pairs for row in pair]


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
