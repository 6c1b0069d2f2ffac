"""`Content`: a file by its length and its hash, and the files that a parcel may leave out. Loads neither torch nor
Flower.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from fccl.paths import ADAPTER, ExchangeName, ExchangePaths

MOST_DRAWN_BYTES = 2**28  # of an adapter that a site makes of nothing but a seed and names
_OF_ROUND = frozenset({"global_adapter", "reference", "correction"})
_ADAPTERS = _OF_ROUND | {"adapter"}


@dataclass(frozen=True)
class Content:
    """Enough to know a file again, whatever it is called."""

    length: int  # bytes
    sha256: str

    @classmethod
    def of(cls, content: bytes | bytearray) -> Self:
        """That of these bytes."""
        return cls(len(content), hashlib.sha256(content).hexdigest())


def is_adapter(paths: ExchangePaths, text: str) -> bool:
    """Whether a file of this name holds a whole adapter of the server's: it alone is ever left out."""
    name = paths.name(text)
    return name is not None and name.kind in _ADAPTERS and text.endswith(ADAPTER)


def stays(paths: ExchangePaths, name: ExchangeName, laid: Collection[str]) -> bool:
    """Whether a file of this name stays at a site when these are laid.

    The adapters of a round do beside a request alone, as they do at the server. Files of a round take their place, so
    they are never more than those of one message.
    """
    if name.kind not in _OF_ROUND or paths.request.name not in laid:
        return False
    return not any((other := paths.name(text)) is not None and other.kind in _OF_ROUND for text in laid)
