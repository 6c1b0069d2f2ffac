"""An adapter as its change of another one, in the bytes that a codec makes: `CodedAdapter`, and what reads one.

The bytes are a header of 64, then the codec's. All numbers are little endian:

    8  b"fccl chg"      2  version, 1      2  codec      4  rank of the adapter
    8  numbers d        8  numbers that are sent         32  SHA-256 of the base (`Adapter.sha256`)

Whoever reads has the base, so every byte of the header is known beforehand, and so is the length.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.codecs import Largest, codec_of, count_of
from fccl.adapters.ranks import rank_of
from fccl.adapters.source import MadeOnLoad
from fccl.display.plain_text import printable
from fccl.errors import AdapterError
from fccl.specs.codecs import CODECS, CodecSpec

MAGIC, VERSION = b"fccl chg", 1
_HEADER = struct.Struct("<8sHHIQQ32s")
HEADER_BYTES = _HEADER.size
_FIELDS = ("kind of file", "version", "codec", "rank", "number of numbers", "number of numbers sent", "base")


def base_of(content: bytes | bytearray) -> str:
    """The `Adapter.sha256` of the adapter whose change these bytes say they are; they begin with a whole header."""
    return bytes(_HEADER.unpack(content[:HEADER_BYTES])[-1]).hex()


@dataclass(frozen=True)
class CodedReader:
    """Reads changes of `base` in one codec: of that length, with that header, or not at all."""

    base: Adapter
    spec: CodecSpec

    @property
    def form(self) -> Form:
        """Names and shapes."""
        return self.base.form

    @cached_property
    def header(self) -> bytes:
        """The first 64 bytes of every such change."""
        codec, count = codec_of(self.spec), count_of(self.form)
        sent = codec.kept(self.form) if isinstance(codec, Largest) else count
        number = CODECS.index(self.spec.name)
        return _HEADER.pack(MAGIC, VERSION, number, rank_of(self.form), count, sent, bytes.fromhex(self.base.sha256))

    @cached_property
    def length(self) -> int:
        """The number of bytes that every such change has."""
        return HEADER_BYTES + codec_of(self.spec).length(self.form)

    def read(self, content: bytes | bytearray, source: str) -> Adapter:
        """The adapter: the base and its change, added in float32.

        Raises `AdapterError` for anything that `written` does not write.
        """
        try:
            self._require_known(content)
            change = codec_of(self.spec).decode(bytes(content[HEADER_BYTES:]), self.form)
            return Adapter.of_vector(self.base.vector + change, self.form)
        except AdapterError as error:
            raise AdapterError(f"{source} {printable(str(error))}") from error

    def written(self, adapter: Adapter, seed: int) -> bytes:
        """The bytes of an adapter of the base's form; `seed` decides how its numbers are rounded.

        Raises `AdapterError` where the change is not finite, or the form another.
        """
        self.form.require(adapter.form)
        change = Adapter.of_vector(adapter.vector - self.base.vector, self.form).vector
        draw = torch.Generator().manual_seed(seed)
        return self.header + codec_of(self.spec).encode(change, self.form, draw)

    def _require_known(self, content: bytes | bytearray) -> None:
        if len(content) != self.length:
            raise AdapterError(f"has {len(content):,} bytes, a change in {self.spec.name} has {self.length:,}")
        if content[:HEADER_BYTES] != self.header:
            said, known = _HEADER.unpack(content[:HEADER_BYTES]), _HEADER.unpack(self.header)
            wrong = [name for name, mine, theirs in zip(_FIELDS, known, said, strict=True) if mine != theirs]
            raise AdapterError(f"has another {wrong[0]} than the change that was asked for")


@dataclass(frozen=True, eq=False)
class CodedAdapter(MadeOnLoad):
    """An `AdapterSource` whose adapter is made of its base and its change at every load.

    >>> base = Adapter({"w": torch.zeros(1000)})
    >>> sent = CodedAdapter.of(Adapter({"w": torch.linspace(0, 1, 1000)}), base, CodecSpec(name="topk"), seed=7)
    >>> len(base.to_bytes()), len(sent.content), sent.load().tensors["w"][[0, 999]].tolist()
    (4072, 443, [0.0, 1.0])
    """

    content: bytes
    reader: CodedReader

    @classmethod
    def of(cls, adapter: Adapter, base: Adapter, spec: CodecSpec, seed: int) -> Self:
        """The adapter, as far as the codec keeps it. Raises `AdapterError` as `CodedReader.written`."""
        reader = CodedReader(base, spec)
        return cls(reader.written(adapter, seed), reader)

    @property
    def form(self) -> Form:
        """Names and shapes."""
        return self.reader.form

    def load(self) -> Adapter:
        """The adapter that a receiver has. Raises `AdapterError` where the bytes hold none."""
        return self.reader.read(self.content, "the coded adapter")
