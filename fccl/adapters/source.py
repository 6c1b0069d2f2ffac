"""`AdapterSource`: an adapter that need not be in memory, such as an update in its file or behind a codec."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol

from fccl.adapters.adapter import Adapter, Form


class AdapterSource(Protocol):
    """An adapter by what it is known by before it is loaded: `Adapter`, `StoredAdapter` and `WithFrozen` are some.

    A thousand updates need not fit in memory, so a rule loads each when it needs it and keeps none:

        norms = [source.load().distance(before) for source in updates]
    """

    @property
    def form(self) -> Form:
        """Names and shapes; known without loading."""
        ...

    @property
    def sha256(self) -> str:
        """`Adapter.sha256` of what `load` returns, a hash of names, shapes and bits; computing it may load it."""
        ...

    def load(self) -> Adapter:
        """The adapter. Raises `AdapterError` when it is not what it was, `StorageError` when it cannot be read."""
        ...

    def save(self, path: Path) -> None:
        """Write an adapter's file, all or nothing. Raises as `load` does."""
        ...


class MadeOnLoad(ABC):
    """Base of sources whose adapter is made at every load, so that one at a time is in memory.

    Its hash and its file are those of what `load` returns.
    """

    @property
    def sha256(self) -> str:
        """`Adapter.sha256` of the adapter; makes it."""
        return self.load().sha256

    @abstractmethod
    def load(self) -> Adapter:
        """The adapter."""

    def save(self, path: Path) -> None:
        """Write the file, all or nothing. Raises as `load` does, and `StorageError`."""
        self.load().save(path)
