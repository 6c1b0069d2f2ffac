"""Named tensors as the bytes of a safetensors file: written in one spelling, read without trusting any of it.

The file is eight bytes of length (little endian), as many bytes of JSON that name each tensor's type, shape and place,
then the numbers. So it can be judged before a single number is read: nothing is run, nothing is unpacked, and no memory
is taken for what a file only claims to hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from fccl.display.plain_text import printable
from fccl.errors import AdapterError
from fccl.storage.reading import NotJson, json_value

MAX_HEADER_BYTES = 2**24  # a hundred thousand tensors
METADATA = "__metadata__"  # the one name that is no tensor's
_TYPES = {"F32": torch.float32, "F64": torch.float64}
_NAMES = {type_: name for name, type_ in _TYPES.items()}
_MOST_DIMENSIONS = 8
_LARGEST = 2**40  # of a dimension, and of a place in the file
_ALIGNED = 8  # bytes, as the format has it: the numbers begin at a multiple

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class _Span:
    """Where a tensor's numbers lie behind the header, in bytes, and what shape they have."""

    begin: int
    end: int
    shape: tuple[int, ...]


def header_of(shapes: Shapes, dtype: torch.dtype = torch.float32) -> bytes:
    """The beginning of a file of tensors with these shapes. The numbers follow in the order of the names."""
    entries, place = {}, 0
    for name in sorted(shapes):
        end = place + prod(shapes[name]) * dtype.itemsize
        entries[name] = {"dtype": _NAMES[dtype], "shape": list(shapes[name]), "data_offsets": [place, end]}
        place = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNED)
    return len(text).to_bytes(8, "little") + text


def to_bytes(tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32) -> bytes:
    """The whole file: the same bytes for equal tensors."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    numbers = [tensors[name].detach().contiguous().numpy().reshape(-1).view(np.uint8).data for name in sorted(tensors)]
    return b"".join([header_of(shapes, dtype), *numbers])


def read_tensors(
    content: bytearray, source: str, dtype: torch.dtype = torch.float32, most: int = MAX_HEADER_BYTES
) -> dict[str, Tensor]:
    """The tensors of a file, which share its memory. Raises `AdapterError` unless it is a safetensors file of this type
    alone.

    `source` is what an error calls it, `most` is how many bytes the header may have.
    """
    try:
        start = _start(content, most)
        spans = _spans(content[8:start], dtype)
        _require_whole(spans.values(), len(content) - start)
    except AdapterError as error:
        raise AdapterError(f"{source} {printable(str(error))}") from error
    return {name: numbers_at(content, start + span.begin, span.shape, dtype) for name, span in spans.items()}


def shapes_of(header: bytearray, length: int, source: str) -> dict[str, tuple[int, ...]]:
    """The shapes of a file of so many bytes that begins with this header; its numbers need not be there.

    Raises `AdapterError` unless it could be a whole file's. Takes no memory for numbers.
    """
    try:
        if len(header) < 8 or int.from_bytes(header[:8], "little") != len(header) - 8:
            raise AdapterError("is not the header of a safetensors file")
        spans = _spans(header[8:], torch.float32)
        _require_whole(spans.values(), length - len(header))
    except AdapterError as error:
        raise AdapterError(f"{source} {printable(str(error))}") from error
    return {name: span.shape for name, span in spans.items()}


def numbers_at(content: bytearray, start: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """The tensor whose numbers begin at a place of the file. It shares the file's memory."""
    count = prod(shape)
    return (
        torch.frombuffer(content, dtype=dtype, count=count, offset=start).view(shape)
        if count
        else torch.empty(shape, dtype=dtype)
    )


def _start(content: bytearray, most: int) -> int:
    """Where the numbers begin."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise AdapterError("is not a safetensors file: it ends before its header does")
    if length > most:
        raise AdapterError(f"has a header of {length:,} bytes, at most {most:,} are possible")
    if length % _ALIGNED:
        raise AdapterError(
            f"is not a safetensors file as it should be: its numbers do not begin at a multiple of {_ALIGNED} bytes"
        )
    return 8 + length


def _spans(header: bytearray, dtype: torch.dtype) -> dict[str, _Span]:
    try:
        entries = json_value(header)
    except NotJson as error:
        raise AdapterError(f"is not a safetensors file: its header {error}") from error
    if not isinstance(entries, dict):
        raise AdapterError("is not a safetensors file: its header is not a JSON object")
    metadata = entries.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise AdapterError(f"is not a safetensors file: its {METADATA} is not text by name")
    return {name: _span(name, entry, dtype) for name, entry in entries.items()}


def _span(name: str, entry: object, dtype: torch.dtype) -> _Span:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise AdapterError(f"does not say type, shape and place of {name}, or says more")
    if entry["dtype"] != _NAMES[dtype]:
        raise AdapterError(f"has {name} as {entry['dtype']!r}, expected {_NAMES[dtype]!r} ({dtype})")
    shape, offsets = _integers(entry["shape"]), _integers(entry["data_offsets"])
    if shape is None or len(shape) > _MOST_DIMENSIONS:
        raise AdapterError(f"has {name} with a shape that no tensor has")
    if offsets is None or len(offsets) != 2:
        raise AdapterError(f"has {name} at no place in the file")
    if offsets[1] - offsets[0] != prod(shape) * dtype.itemsize:
        raise AdapterError(f"has {name} with shape {shape} in {offsets[1] - offsets[0]:,} bytes")
    if prod(filter(None, shape)) > _LARGEST:  # one without numbers has strides nevertheless, and torch counts them
        raise AdapterError(f"has {name} with a shape that no tensor has")
    return _Span(offsets[0], offsets[1], shape)


def _integers(value: object) -> tuple[int, ...] | None:
    """A list of integers that may be sizes; None when it is anything else, as true and 1.0 are."""
    if not isinstance(value, list) or not all(type(number) is int and 0 <= number <= _LARGEST for number in value):
        return None
    return tuple(value)


def _require_whole(spans: Iterable[_Span], length: int) -> None:
    """Raises `AdapterError` unless every byte behind the header is of exactly one tensor."""
    place = 0
    for span in sorted(spans, key=lambda span: (span.begin, span.end)):
        if span.begin != place:
            raise AdapterError(
                f"has numbers that {'overlap' if span.begin < place else 'nobody names'} at byte "
                f"{min(span.begin, place):,}"
            )
        place = span.end
    if place != length:
        raise AdapterError(f"has {length:,} bytes of numbers, its header speaks of {place:,}")
