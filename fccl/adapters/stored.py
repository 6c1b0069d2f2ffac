"""Adapters that stay in their files: read with the form that is expected, checked again at every use.

`AdapterReader` reads a file that somebody else wrote. Most such files begin, to the byte, as this process's own would:
then the numbers are where its own are. All others are read by what their header says, after every length, shape and
place in it was found right.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Self

from torch import Tensor

from fccl.adapters.adapter import HEADER_SLACK_BYTES, Adapter, Form, adapter_from_bytes
from fccl.adapters.recent import Checked, Recent
from fccl.adapters.tensor_files import header_of, numbers_at
from fccl.display.plain_text import printable
from fccl.errors import AdapterError
from fccl.storage.files import flush_file, read_whole, storage_errors, write_bytes

_FLOAT32 = 4  # bytes


@dataclass(frozen=True, eq=False)
class AdapterReader:
    """Reads adapter files of one form. `max_bytes` is the size above which no such file is."""

    form: Form

    @classmethod
    def like(cls, adapter: Adapter) -> Self:
        """For files of adapters with the same names and shapes as `adapter`."""
        return cls(adapter.form)

    @cached_property
    def header(self) -> bytes:
        """The bytes that a file of this form begins with when this program writes it."""
        return header_of(self.form.shapes)

    @cached_property
    def length(self) -> int:
        """The number of bytes that it has then."""
        return len(self.header) + _FLOAT32 * sum(map(prod, self.form.shapes.values()))

    @property
    def max_bytes(self) -> int:
        """A file that another program wrote may say more in its header."""
        return self.length + HEADER_SLACK_BYTES

    def read(self, content: bytearray, source: str) -> Adapter:
        """The adapter in a file's content.

        Raises `AdapterError` when there is none of this form; runs no code from it.
        """
        if len(content) > self.max_bytes:
            raise AdapterError(f"{source} has {len(content):,} bytes, at most {self.max_bytes:,} are possible")
        if not self.is_as_written_here(content):
            return adapter_from_bytes(content, source, self.form)
        try:
            return Adapter.of_vector(self._numbers(content), self.form)
        except AdapterError as error:
            raise AdapterError(f"{source}: {printable(str(error))}") from error

    def is_as_written_here(self, content: bytearray) -> bool:
        """Whether nothing but the numbers can differ from what this program writes."""
        return len(content) == self.length and content.startswith(self.header)

    def _numbers(self, content: bytearray) -> Tensor:
        """All numbers of the file, one tensor after the other; they share its memory."""
        return numbers_at(content, len(self.header), ((self.length - len(self.header)) // _FLOAT32,))


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter in a file, known by the hash of the file's bytes. It takes no memory until it is loaded.

    With `recent` the bytes may be held there instead: then the file is neither read nor needed.
    """

    path: Path
    file_sha256: str
    reader: AdapterReader
    recent: Recent | None = field(default=None, compare=False, repr=False)

    @property
    def form(self) -> Form:
        """Names and shapes."""
        return self.reader.form

    @property
    def length(self) -> int:
        """The number of bytes of the file. Raises `StorageError` when it is gone."""
        if held := self._held():
            return len(held.content)
        with storage_errors(self.path, "read"):
            return self.path.stat().st_size

    @cached_property
    def sha256(self) -> str:
        """`Adapter.sha256` of the adapter in the file; loads it once."""
        return self.load().sha256

    def load(self) -> Adapter:
        """Read and check it. Raises `AdapterError` when the file is not what it was, `StorageError` when it is gone."""
        held = self._held()
        return held.adapter if held else self.reader.read(self._content(), str(self.path))

    def save(self, path: Path) -> None:
        """Write the same bytes to another file. Raises as `load` does."""
        write_bytes(path, self._content())

    def share(self, path: Path, mode: int) -> None:
        """See that a new file holds the same bytes, with this mode, on the disk. Raises as `load` does.

        It is another name of the same file where there is one of this mode and the file system has such names: then no
        byte is written twice.
        """
        held, content = self._held(), self._content()
        if held or not self._linked(path, mode):
            write_bytes(path, content, mode)

    def _linked(self, path: Path, mode: int) -> bool:
        try:
            if stat.S_IMODE(os.stat(self.path).st_mode) != mode:
                return False
            os.link(self.path, path)
        except OSError:
            return False
        flush_file(path)
        return True

    def _held(self) -> Checked | None:
        return self.recent.find(self.file_sha256) if self.recent else None

    def _content(self) -> bytearray:
        if held := self._held():
            return held.content
        content = read_whole(self.path)
        if hashlib.sha256(content).hexdigest() != self.file_sha256:
            raise AdapterError(f"{self.path} was changed since its hash was taken")
        return content
