"""`Recent`: files that were checked and stay in memory until their round is over, so that nothing reads them again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from fccl.adapters.adapter import Adapter

MOST_BYTES = 256_000_000  # two hundred updates of GPT-2 with LoRA of rank 8 on c_attn


class Checked(NamedTuple):
    """The content of a file, and the adapter in it."""

    content: bytearray
    adapter: Adapter


@dataclass(frozen=True, eq=False)
class Recent:
    """At most `most_bytes` of contents, those that came first, and the one that came last whatever its length.

    Each is known by the SHA-256 of its bytes, so it is never mistaken for another, and files that are alike are held
    once.
    """

    most_bytes: int = MOST_BYTES
    _first: dict[str, Checked] = field(default_factory=dict)
    _last: dict[str, Checked] = field(default_factory=dict)

    def hold(self, sha256: str, checked: Checked) -> bool:
        """Hold a content that has just been checked. Says whether it stays until `clear`: else it needs a file."""
        self._last.clear()
        if sha256 in self._first:
            return True
        if self._length() + len(checked.content) <= self.most_bytes:
            self._first[sha256] = checked
            return True
        self._last[sha256] = checked
        return False

    def find(self, sha256: str) -> Checked | None:
        """The content with this hash, where it is held."""
        return self._first.get(sha256) or self._last.get(sha256)

    def clear(self) -> None:
        """Hold nothing."""
        self._first.clear()
        self._last.clear()

    def _length(self) -> int:
        return sum(len(held.content) for held in self._first.values())
