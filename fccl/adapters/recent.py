"""`Recent`: files that were read and checked a moment ago, so that they are not read and checked again at every use."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fccl.adapters.adapter import Adapter
from fccl.storage.reading import identity

MOST_BYTES = 256_000_000  # two hundred updates of GPT-2 with LoRA of rank 8 on c_attn


class Checked(NamedTuple):
    """The content of a file, and the adapter in it."""

    content: bytearray
    adapter: Adapter


class _Held(NamedTuple):
    file: tuple[int, int, int] | None  # its identity when it was checked
    checked: Checked


@dataclass(frozen=True, eq=False)
class Recent:
    """At most `most_bytes` of files, those that came first, and the one that came last whatever its length.

    A file counts as the one that was checked while it has the same inode, time and length. What is used then is what
    was checked, whoever writes to the file.
    """

    most_bytes: int = MOST_BYTES
    _first: dict[Path, _Held] = field(default_factory=dict)
    _last: dict[Path, _Held] = field(default_factory=dict)

    def note(self, path: Path, checked: Checked) -> None:
        """Hold what has just been written to `path`."""
        self._first.pop(path, None)
        self._last.clear()
        self._last[path] = _Held(identity(path), checked)
        if self._length() + len(checked.content) <= self.most_bytes:
            self._first.update(self._last)

    def find(self, path: Path) -> Checked | None:
        """The content of the file, where it is held and the file is still the same."""
        held = self._last.get(path) or self._first.get(path)
        return held.checked if held and held.file == identity(path) else None

    def clear(self) -> None:
        """Hold nothing."""
        self._first.clear()
        self._last.clear()

    def _length(self) -> int:
        return sum(len(held.checked.content) for held in self._first.values())
