"""Activations that no training changes: made once an example, kept in memory, then on the disk, bounded in both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fccl.storage.cache import Cache

IN_MEMORY = 1_000_000_000  # bytes: 3,300 examples of 98 tokens at GPT-2's width in float32
SHARE_OF_DISK = 0.75  # of the cache's bound: the rest is for what else is kept there


@dataclass
class Activations:
    """Tensors (tokens, width) by key: the first ones in memory, then some on the disk, the others made each time.

    What is kept stays. Training reads all of its examples in turn, so whatever made room for another would be wanted
    before that one is. A key says everything that its tensor follows from.

    >>> kept = Activations()
    >>> kept.of("a", like=torch.zeros(1, 2), make=lambda: torch.ones(3, 2)).shape
    torch.Size([3, 2])
    """

    disk: Cache | None = None
    most_bytes: int = IN_MEMORY
    _kept: dict[str, Tensor] = field(default_factory=dict, init=False)
    _bytes: int = field(default=0, init=False)
    _on_disk: dict[str, int] = field(default_factory=dict, init=False)  # bytes of the entries that this process uses

    def of(self, key: str, like: Tensor, make: Callable[[], Tensor]) -> Tensor:
        """The tensor of this key, in main memory. `like` has its width and its type; `make` makes it."""
        if key in self._kept:
            return self._kept[key]
        found = self._read(key, like)
        read = found is not None
        tensor = make().cpu() if found is None else found
        if self._bytes + tensor.nbytes <= self.most_bytes:
            self._kept[key] = tensor
            self._bytes += tensor.nbytes
        elif self.disk is not None and not read:
            self._write(self.disk, key, tensor)
        return tensor

    def _read(self, key: str, like: Tensor) -> Tensor | None:
        content = self.disk.get(key) if self.disk is not None else None
        if content is None:
            return None
        self._on_disk[key] = len(content)
        return torch.frombuffer(bytearray(content), dtype=like.dtype).view(-1, like.shape[1])

    def _write(self, disk: Cache, key: str, tensor: Tensor) -> None:
        """Keep it there unless other entries of this process would go for it."""
        others = sum(length for known, length in self._on_disk.items() if known != key)
        if others + tensor.nbytes <= SHARE_OF_DISK * disk.most_bytes:
            disk.put(key, tensor.contiguous().view(torch.uint8).numpy().tobytes())
            self._on_disk[key] = tensor.nbytes
