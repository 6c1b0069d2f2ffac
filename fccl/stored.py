"""Adapters that stay in their files: read with the form that is expected, checked again at every use.

`AdapterReader` reads a file that somebody else wrote. Most such files are, but for the numbers, byte for byte what this process would have
written itself; the numbers of those are taken from their known places, about ten times faster than unpickling. Everything
else goes through `torch.load(weights_only=True)`, after checks that cost nothing.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from fccl.adapter import Adapter, Form, adapter_from_bytes
from fccl.errors import AdapterError
from fccl.files import storage_errors, write_bytes

_Spans = list[tuple[int, int]]
_FOLDER = 0x10  # among the zip format's attributes of a record


@dataclass(frozen=True, eq=False)
class AdapterReader:
    """Reads adapter files of one form. `max_bytes` is the size above which no such file is."""

    form: Form
    length: int
    fixed: NDArray[np.intp]  # the places in the file where the same is written whatever the numbers are
    expected: NDArray[np.uint8]  # and what that is
    starts: Mapping[str, int]  # where each tensor's numbers begin; empty when this version of torch writes files of another kind

    @classmethod
    def like(cls, adapter: Adapter) -> Self:
        """For files of adapters with the same names and shapes as `adapter`."""
        content = adapter.to_bytes()
        archive = zipfile.ZipFile(io.BytesIO(content))
        starts: dict[str, int] = {}
        for index, (name, tensor) in enumerate(adapter.tensors.items()):
            record = next((info for info in archive.infolist() if info.filename.endswith(f"/data/{index}")), None)
            start = _start(content, record) if record else 0
            if tensor.numel() == 0 or content[start : start + tensor.nbytes] != tensor.numpy().tobytes():
                starts = {}
                break
            starts[name] = start
        fixed = _outside(_free_spans(content, archive), len(content))
        return cls(adapter.form, len(content), fixed, np.frombuffer(content, np.uint8)[fixed], starts)

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
                return Adapter({name: _numbers(content, start, self.form.shapes[name]) for name, start in self.starts.items()})
            _require_plain_zip(content, source)
            return adapter_from_bytes(content, source, self.form)
        except AdapterError as error:
            raise AdapterError(f"{source}: {error}" if source not in str(error) else str(error)) from error
        except Exception as error:  # whatever a hostile file makes of the libraries below, it is not an adapter
            raise AdapterError(f"{source} is not a readable adapter file ({type(error).__name__})") from error

    def _is_as_written_here(self, content: bytearray) -> bool:
        if not self.starts or len(content) != self.length:
            return False
        return bool(np.array_equal(np.frombuffer(content, np.uint8)[self.fixed], self.expected))


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


def _start(content: bytes, record: zipfile.ZipInfo) -> int:
    """Where a record's content begins: after a header of 30 bytes, its name and its padding."""
    at = record.header_offset
    return at + 30 + _number(content, at + 26) + _number(content, at + 28)


def _number(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 2], "little")


def _free_spans(content: bytes, archive: zipfile.ZipFile) -> _Spans:
    """What differs between two files of one form: the numbers, torch's hash of them, and the zip format's check sums of both."""
    spans, entry = [], archive.start_dir
    for record in archive.infolist():
        start = _start(content, record)
        end = start + record.file_size
        spans.append((record.header_offset + 14, record.header_offset + 18))  # in the record's header
        if "/data/" in record.filename or record.filename.endswith("/serialization_id"):
            spans.append((start, end))
        if content[end : end + 4] == b"PK\x07\x08":
            spans.append((end + 4, end + 8))  # behind the record
        spans.append((entry + 16, entry + 20))  # in the list of records at the end
        entry += 46 + _number(content, entry + 28) + _number(content, entry + 30) + _number(content, entry + 32)
    return spans


def _outside(spans: _Spans, length: int) -> NDArray[np.intp]:
    free = np.zeros(length, bool)
    for start, stop in spans:
        free[start:stop] = True
    return np.flatnonzero(~free)


def _numbers(content: bytearray, start: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.frombuffer(content, dtype=torch.float32, count=prod(shape), offset=start).view(shape)


def _require_plain_zip(content: bytearray, source: str) -> None:
    """What `torch.save` writes is a zip file without compression, so nothing in it can be larger than it is."""
    if content[:4] != b"PK\x03\x04":
        raise AdapterError(f"{source} is not an adapter file")
    archive = zipfile.ZipFile(io.BytesIO(content))
    records = archive.infolist()
    if any(record.compress_type != zipfile.ZIP_STORED for record in records) or sum(record.file_size for record in records) > len(content):
        raise AdapterError(f"{source} is compressed, which no adapter file is")
    if any(record.external_attr & _FOLDER for record in records):  # torch would leave the numbers to chance: it does not read a folder's content
        raise AdapterError(f"{source} has a folder where an adapter file has numbers")
    if archive.testzip() is not None:  # torch does not look whether a record is where the list of records says, nor at its check sum
        raise AdapterError(f"{source} is not a readable adapter file (a record is damaged)")
