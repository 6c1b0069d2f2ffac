"""The layers below the lowest with LoRA: what they make of an example is computed once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cached_property

import torch
from torch import Tensor

from fccl.model.activations import Activations
from fccl.model.encoding import Responses
from fccl.model.gpt2 import Gpt2
from fccl.model.packing import pack

_VERSION = 1  # of the arithmetic in `Gpt2.entering`: another way to compute it needs another number


@dataclass(frozen=True, eq=False)
class FrozenLayers:
    """The activations that enter the lowest layer with LoRA, of any batch, from `kept` where they are known.

    An example's are always computed for it alone. The bits of a matrix product may depend on its number of rows, so
    they would otherwise follow from the batch in which the example came first. `kept` may serve any models: a key
    holds the weights of these layers, the machine's arithmetic and the example's tokens.
    """

    gpt2: Gpt2
    kept: Activations
    _keys: dict[str, str] = field(default_factory=dict, init=False)

    def entering(self, examples: Sequence[Responses], arithmetic: Mapping[str, str]) -> Tensor:
        """(T, D), the tokens in the order of `pack(examples)`. `arithmetic` is of this process, as it is now."""
        prefix = self._prefix(json.dumps(arithmetic, sort_keys=True))
        return torch.cat([self._of(responses, prefix) for responses in examples])

    def _of(self, responses: Responses, prefix: str) -> Tensor:
        """One example alone, (t, D)."""
        tokens = repr([(row.ids, row.prompt_length) for row in responses])
        key = f"{prefix} {hashlib.sha256(tokens.encode()).hexdigest()}"
        device = self.gpt2.positions.device
        made = self.kept.of(key, self.gpt2.positions, lambda: self.gpt2.entering(pack([responses]).to(device)))
        return made.to(device)

    def _prefix(self, arithmetic: str) -> str:
        """The part of a key that all examples share."""
        if arithmetic not in self._keys:
            said = f"{_VERSION} {self._weights} {arithmetic}"
            self._keys[arithmetic] = f"activations {hashlib.sha256(said.encode()).hexdigest()}"
        return self._keys[arithmetic]

    @cached_property
    def _weights(self) -> str:
        """A hash of all that these layers are, weights and settings. Nothing writes to them after the model is loaded:
        the trailing directions of a wide adapter go into layers with LoRA alone."""
        digest = hashlib.sha256()
        for part in _content([self.gpt2.tokens, self.gpt2.positions, self.gpt2.frozen]):
            digest.update(part)
        return digest.hexdigest()


def _content(value: object) -> Iterator[bytes | memoryview]:
    """Everything that a value is made of, with the classes, names and shapes that keep two values apart."""
    if isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)};".encode()
        yield value.detach().cpu().contiguous().view(torch.uint8).numpy().data
    elif is_dataclass(value) and not isinstance(value, type):
        yield f"{type(value).__name__} ".encode()  # two classes may compute otherwise with the same weights
        for each in fields(value):
            yield f"{each.name}=".encode()
            yield from _content(getattr(value, each.name))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield f"{len(value)}:".encode()
        for item in value:
            yield from _content(item)
    else:
        yield f"{value!r};".encode()
