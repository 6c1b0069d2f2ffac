"""Adapters that stay in their files: read with the form that is expected, checked again at every use.

`AdapterReader` reads a file that somebody else wrote. Most such files are, but for the numbers, byte for byte what this process would have
written itself; the numbers of those are taken from their known places, about ten times faster than unpickling. Everything
else goes through `torch.load(weights_only=True)`, after checks that cost nothing.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Self

import torch

from fccl.adapter import Adapter, Form, adapter_from_bytes
from fccl.errors import AdapterError
from fccl.files import storage_errors, write_bytes

_LOCAL_HEADER = 30  # bytes before the name, in a zip file
_CRC = slice(14, 18)  # of the content, in that header: the one part that differs between two adapters of one form


@dataclass(frozen=True)
class _Tensor:
    """Where one tensor's record begins in the file, where its numbers do, and what its zip header is but for the check sum."""

    name: str
    shape: tuple[int, ...]
    header: int
    start: int
    frame: bytes


@dataclass(frozen=True)
class AdapterReader:
    """Reads adapter files of one form. `max_bytes` is the size above which no such file is."""

    form: Form
    length: int
    pickle: tuple[int, bytes]  # where the record of names and shapes is, and what it says
    tensors: tuple[_Tensor, ...]

    @classmethod
    def like(cls, adapter: Adapter) -> Self:
        """For files of adapters with the same names and shapes as `adapter`."""
        content = adapter.to_bytes()
        records = {info.filename.split("/", 1)[1]: info for info in zipfile.ZipFile(io.BytesIO(content)).infolist()}
        start = _start(content, records["data.pkl"])
        tensors = []
        for index, (name, tensor) in enumerate(adapter.tensors.items()):
            info = records[f"data/{index}"]
            begin = _start(content, info)
            as_expected = content[begin : begin + info.file_size] == tensor.numpy().tobytes()  # else this torch numbers its records otherwise
            if as_expected and tensor.numel():
                tensors.append(_Tensor(name, tuple(tensor.shape), info.header_offset, begin, _frame(content, info.header_offset, begin)))
        complete = len(tensors) == len(adapter.tensors)
        return cls(adapter.form, len(content), (start, content[start : start + records["data.pkl"].file_size]), tuple(tensors) if complete else ())

    @property
    def max_bytes(self) -> int:
        """A file of another version of torch may be a little longer."""
        return self.length + self.length // 8 + 65_536

    def read(self, content: bytearray, source: str) -> Adapter:
        """The adapter in a file's content. Raises `AdapterError` when there is none of this form; runs no code from it."""
        if len(content) > self.max_bytes:
            raise AdapterError(f"{source} has {len(content):,} bytes, at most {self.max_bytes:,} are possible")
        try:
            if self._is_as_written_here(content):
                return Adapter({tensor.name: _numbers(content, tensor) for tensor in self.tensors})
            _require_plain_zip(content, source)
            return adapter_from_bytes(content, source, self.form)
        except AdapterError as error:
            raise AdapterError(f"{source}: {error}" if source not in str(error) else str(error)) from error
        except Exception as error:  # whatever a hostile file makes of the libraries below, it is not an adapter
            raise AdapterError(f"{source} is not a readable adapter file ({type(error).__name__})") from error

    def _is_as_written_here(self, content: bytearray) -> bool:
        start, pickle = self.pickle
        if not self.tensors or len(content) != self.length or content[start : start + len(pickle)] != pickle:
            return False
        return all(_frame(content, tensor.header, tensor.start) == tensor.frame for tensor in self.tensors)


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter in a file, known by the hash of the file's bytes. It takes no memory until it is loaded."""

    path: Path
    sha256: str
    reader: AdapterReader

    @property
    def form(self) -> Form:
        """Names and shapes."""
        return self.reader.form

    def load(self) -> Adapter:
        """Read and check it. Raises `AdapterError` when the file is not what it was, `StorageError` when it is gone."""
        return self.reader.read(self._content(), str(self.path))

    def save(self, path: Path) -> None:
        """Write the same bytes to another file. Raises as `load` does."""
        write_bytes(path, self._content())

    def _content(self) -> bytearray:
        with storage_errors(self.path, "read"), open(self.path, "rb", buffering=0) as file:
            content = bytearray(self.path.stat().st_size)
            file.readinto(content)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise AdapterError(f"{self.path} was changed after it was checked")
        return content


def _start(content: bytes, info: zipfile.ZipInfo) -> int:
    """Where a record's content begins: after its header, its name and its padding."""
    at = info.header_offset
    name, extra = (int.from_bytes(content[at + 26 + skip : at + 28 + skip], "little") for skip in (0, 2))
    return at + _LOCAL_HEADER + name + extra


def _frame(content: bytes | bytearray, header: int, start: int) -> bytes:
    return bytes(content[header : header + _CRC.start]) + bytes(content[header + _CRC.stop : start])


def _numbers(content: bytearray, tensor: _Tensor) -> torch.Tensor:
    flat = torch.frombuffer(content, dtype=torch.float32, count=prod(tensor.shape), offset=tensor.start)
    return flat.view(tensor.shape)


def _require_plain_zip(content: bytearray, source: str) -> None:
    """What `torch.save` writes is a zip file without compression, so nothing in it can be larger than it is."""
    if content[:4] != b"PK\x03\x04":
        raise AdapterError(f"{source} is not an adapter file")
    records = zipfile.ZipFile(io.BytesIO(content)).infolist()
    if any(record.compress_type != zipfile.ZIP_STORED for record in records) or sum(record.file_size for record in records) > len(content):
        raise AdapterError(f"{source} is compressed, which no adapter file is")
