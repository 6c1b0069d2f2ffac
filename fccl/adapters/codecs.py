"""Codecs: the change of an adapter in fewer bytes than float32 has, as bytes of a length that its form alone decides.

A change is a vector (d,): all numbers of one adapter less those of another of the same form, in the order of the
tensors' names. `codec_of(spec).encode(change, form, draw)` gives the bytes, `decode(content, form)` the vector that the
receiver adds. The receiver knows the form, so it knows the length before it reads, and takes no memory for a claim.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fccl.adapters.adapter import Form
from fccl.errors import AdapterError
from fccl.specs.codecs import CodecSpec

LARGEST_HALF = 65_504.0  # the largest finite float16
SCALES = tuple(step / 20 for step in range(20, 5, -1))  # of int3, in units of that of the largest number: 1 to 0.3
_BITS = 3  # of an integer under int3
_TINY = torch.finfo(torch.float32).tiny
_FLOAT32, _FLOAT16 = np.dtype("<f4"), np.dtype("<f2")  # the bytes are the same on every machine


class Codec(Protocol):
    """One way to write a change (d,) of float32."""

    def length(self, form: Form) -> int:
        """The number of bytes that a change of this form has."""
        ...

    def encode(self, change: Tensor, form: Form, draw: torch.Generator) -> bytes:
        """The bytes of a change (d,); `draw` decides how numbers are rounded, where that is left to chance."""
        ...

    def decode(self, content: bytes, form: Form) -> Tensor:
        """The change (d,) in bytes of the right length.

        Raises `AdapterError` where they are not what `encode` writes.
        """
        ...


def codec_of(spec: CodecSpec) -> Codec:
    """The codec that a spec names; fp32 is none, adapters then travel in files of their own.

    >>> form = Form({"w": (1000,)})
    >>> [codec_of(CodecSpec(name=name)).length(form) for name in ("fp16", "int8", "int4", "int3", "topk")]
    [2000, 1004, 504, 379, 379]
    """
    known: dict[str, Codec] = {"fp16": Half(), "int8": Integers(8), "int4": Integers(4), "int3": Nearest()}
    return known.get(spec.name) or Largest(spec.share)


def count_of(form: Form) -> int:
    """The number of numbers d in adapters of this form."""
    return sum(map(prod, form.shapes.values()))


@dataclass(frozen=True)
class Half:
    """The change as float16, rounded to the nearest; what is beyond its range becomes its largest number."""

    def length(self, form: Form) -> int:
        return _FLOAT16.itemsize * count_of(form)

    def encode(self, change: Tensor, form: Form, draw: torch.Generator) -> bytes:
        return _halves(change.numpy()).tobytes()

    def decode(self, content: bytes, form: Form) -> Tensor:
        return _vector(np.frombuffer(content, _FLOAT16))


@dataclass(frozen=True)
class Integers:
    """Integers of 8 or 4 bits, times one float32 scale for each direction of the adapter (Alistarh et al. 2017, QSGD).

    A direction is a row of A (rank, fan_in) or a column of B (fan_out, rank); other matrices have a scale a row, other
    tensors one. The scale is the direction's largest number divided by 127 or 7. Rounding is stochastic: up with the
    probability of the fraction, so the expected value is the number itself, and a mean over clients is unbiased.
    """

    bits: int

    @property
    def most(self) -> int:
        """The largest integer; the smallest is its negative."""
        return _most(self.bits)

    def length(self, form: Form) -> int:
        return _FLOAT32.itemsize * _scales_of(form) + math.ceil(count_of(form) * self.bits / 8)

    def encode(self, change: Tensor, form: Form, draw: torch.Generator) -> bytes:
        scales, steps = _in_steps(change, form, self.most)
        noise = torch.rand(steps.shape, generator=draw)  # in [0, 1)
        integers = torch.floor(steps + noise).clamp(-self.most, self.most).to(torch.int8).numpy()
        return _bytes_of(scales) + (integers.tobytes() if self.bits == 8 else _packed(integers))

    def decode(self, content: bytes, form: Form) -> Tensor:
        start, count = _FLOAT32.itemsize * _scales_of(form), count_of(form)
        eight = self.bits == 8
        integers = np.frombuffer(content[start:], np.int8) if eight else _unpacked(content[start:], count)
        if (integers < -self.most).any():
            raise AdapterError(f"has an integer beyond {self.most}")
        return _scaled(integers, content[:start], form)


@dataclass(frozen=True)
class Nearest:
    """Integers of 3 bits, each the nearest, times one float32 scale for each direction as under `Integers`.

    Of `SCALES` the scale of a direction is the one under which the rounded numbers are nearest to the exact ones, by
    their squares. It cuts the few largest. What is rounded or cut off is for the sender to remember and to add to its
    next change (Seide et al. 2014; Karimireddy et al. 2019, error feedback). So nothing is left to chance.
    """

    def length(self, form: Form) -> int:
        return _FLOAT32.itemsize * _scales_of(form) + math.ceil(count_of(form) * _BITS / 8)

    def encode(self, change: Tensor, form: Form, draw: torch.Generator) -> bytes:
        scales, steps = _in_steps(change, form, _most(_BITS), _nearest_scale)
        return _bytes_of(scales) + _in_bits(_whole_steps(steps, _most(_BITS)))

    def decode(self, content: bytes, form: Form) -> Tensor:
        start = _FLOAT32.itemsize * _scales_of(form)
        return _scaled(_of_bits(content[start:], count_of(form)), content[:start], form)


@dataclass(frozen=True)
class Largest:
    """The largest numbers of the change as integers of 4 bits with the scales of `Integers`, and a bit for each number
    that says whether it is among them.

    `share` of them are kept, at least one; of equal ones the first. Kept numbers are rounded to the nearest. What is
    left out or rounded off is for the sender to remember and to add to its next change (Stich et al. 2018, sparsified
    SGD with memory).
    """

    share: float

    def kept(self, form: Form) -> int:
        """The number of numbers that are sent."""
        count = count_of(form)
        return min(count, max(1, math.ceil(self.share * count)))

    def length(self, form: Form) -> int:
        return _bits_end(form) + _FLOAT32.itemsize * _scales_of(form) + math.ceil(self.kept(form) / 2)

    def encode(self, change: Tensor, form: Form, draw: torch.Generator) -> bytes:
        chosen = _chosen(np.abs(change.numpy()), self.kept(form))
        scales, steps = _in_steps(change * torch.from_numpy(chosen), form, _most(4))
        integers = _whole_steps(steps, _most(4))
        return np.packbits(chosen, bitorder="little").tobytes() + _bytes_of(scales) + _packed(integers[chosen])

    def decode(self, content: bytes, form: Form) -> Tensor:
        count, kept, start = count_of(form), self.kept(form), _bits_end(form)
        bits = np.unpackbits(np.frombuffer(content[:start], np.uint8), bitorder="little").astype(bool)
        if bits[count:].any() or int(bits.sum()) != kept:
            raise AdapterError(f"does not mark {kept:,} of its {count:,} numbers")
        end = start + _FLOAT32.itemsize * _scales_of(form)
        integers = np.zeros(count, np.int8)
        integers[bits[:count]] = _unpacked(content[end:], kept)
        return _scaled(integers, content[start:end], form)


def _most(bits: int) -> int:
    """The largest integer of so many bits; the smallest is its negative."""
    return (1 << (bits - 1)) - 1


def _bits_end(form: Form) -> int:
    """The bytes of one bit for each number."""
    return math.ceil(count_of(form) / 8)


def _scale_of_largest(name: str, piece: Tensor, most: int) -> Tensor:
    """The scales under which the largest number of each direction is the largest integer."""
    return _largest(name, piece) / most


def _nearest_scale(name: str, piece: Tensor, most: int) -> Tensor:
    """The scales, of `SCALES` times those of the largest numbers, whose rounding errors have the least squares.

    Summed by numpy, in the same order whatever number of threads torch has. Of equal ones the first.
    """
    largest = _scale_of_largest(name, piece, most)
    if not piece.numel():
        return largest
    along = tuple(axis for axis, size in enumerate(largest.shape) if size == 1)
    tried = [largest * share for share in SCALES]
    errors = np.stack([np.square(_error(piece, scale, most)).sum(axis=along, keepdims=True) for scale in tried])
    best = torch.as_tensor(errors.argmin(axis=0)).view(largest.shape)  # the place of each in `SCALES`
    return torch.stack(tried).gather(0, best.unsqueeze(0)).squeeze(0)


def _error(piece: Tensor, scale: Tensor, most: int) -> NDArray[np.float64]:
    """The part of a tensor that integers of this scale do not say."""
    integers = (piece / scale.clamp(min=_TINY)).round().clamp(-most, most)
    return piece.double().sub_((integers * scale).double()).numpy()


def _in_steps(
    change: Tensor, form: Form, most: int, scale_of: Callable[[str, Tensor, int], Tensor] = _scale_of_largest
) -> tuple[Tensor, Tensor]:
    """The scales, tensor by tensor, and the change (d,) in units of them."""
    scales, steps = [], [change[:0]]
    for name, piece in _pieces(change, form):
        scale = scale_of(name, piece, most)
        scales.append(scale.reshape(-1))
        steps.append((piece / scale.clamp(min=_TINY)).reshape(-1))
    return torch.cat(scales), torch.cat(steps)


def _scaled(integers: NDArray[np.int8], scales: bytes, form: Form) -> Tensor:
    """integers (d,) and scales, tensor by tensor -> the change (d,). Raises `AdapterError` for what is no scale."""
    factors = np.frombuffer(scales, _FLOAT32)
    if not (np.isfinite(factors).all() and (factors >= 0).all()):
        raise AdapterError("has a scale that is no finite number of 0 or more")
    place, numbers, known = 0, _vector(integers), _vector(factors)
    found = [numbers[:0]]
    for name, piece in _pieces(numbers, form):
        shape = _scale_shape(name, piece.shape)
        found.append((piece * known[place : place + prod(shape)].view(shape)).reshape(-1))
        place += prod(shape)
    return torch.cat(found)


def _whole_steps(steps: Tensor, most: int) -> NDArray[np.int8]:
    """The nearest integers that there are, (d,)."""
    integers: NDArray[np.int8] = steps.round().clamp(-most, most).to(torch.int8).numpy()
    return integers


def _in_bits(integers: NDArray[np.int8]) -> bytes:
    """Integers -3 ... 3, plus 3 each, three bits after three bits, the lowest first."""
    codes = (integers + _most(_BITS)).astype(np.uint8)
    bits = (codes[:, None] >> np.arange(_BITS, dtype=np.uint8)) & 1  # (d, 3)
    return np.packbits(bits.reshape(-1), bitorder="little").tobytes()


def _of_bits(content: bytes, count: int) -> NDArray[np.int8]:
    """The inverse. Raises `AdapterError` for bits that `_in_bits` does not write."""
    bits = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little")
    if bits[_BITS * count :].any():
        raise AdapterError("has something in the bits after its last integer")
    weights = 1 << np.arange(_BITS, dtype=np.uint8)
    codes = (bits[: _BITS * count].reshape(count, _BITS) * weights).sum(axis=1)  # (d,)
    if (codes > 2 * _most(_BITS)).any():
        raise AdapterError(f"has an integer beyond {_most(_BITS)}")
    integers: NDArray[np.int8] = (codes.astype(np.int8) - _most(_BITS)).astype(np.int8)
    return integers


def _packed(integers: NDArray[np.int8]) -> bytes:
    """Integers -7 ... 7, plus 7 each, two a byte, the first in the low half."""
    nibbles = np.zeros(len(integers) + len(integers) % 2, np.uint8)
    nibbles[: len(integers)] = integers + _most(4)
    return bytes((nibbles[0::2] | (nibbles[1::2] << 4)).tobytes())


def _unpacked(content: bytes, count: int) -> NDArray[np.int8]:
    """The inverse. Raises `AdapterError` for a half byte that `_packed` does not write."""
    pairs = np.frombuffer(content, np.uint8)
    nibbles = np.stack([pairs & 15, pairs >> 4], axis=1).reshape(-1)
    if nibbles[count:].any():
        raise AdapterError("has something in its last half byte")
    if (nibbles > 2 * _most(4)).any():
        raise AdapterError(f"has an integer beyond {_most(4)}")
    return (nibbles[:count].astype(np.int8) - _most(4)).astype(np.int8)


def _bytes_of(scales: Tensor) -> bytes:
    return scales.numpy().astype(_FLOAT32).tobytes()


def _chosen(sizes: NDArray[np.float32], kept: int) -> NDArray[np.bool_]:
    """The mask (d,) of the `kept` largest of the sizes (d,). Ties go to the first, on every machine."""
    if not len(sizes):
        return np.zeros(0, bool)
    least = np.partition(sizes, len(sizes) - kept)[len(sizes) - kept]
    chosen: NDArray[np.bool_] = sizes > least
    chosen[np.flatnonzero(sizes == least)[: kept - int(chosen.sum())]] = True
    return chosen


def _pieces(vector: Tensor, form: Form) -> Iterator[tuple[str, Tensor]]:
    """The tensors that lie in a vector (d,), with their names."""
    place = 0
    for name, shape in sorted(form.shapes.items()):
        yield name, vector[place : place + prod(shape)].view(shape)
        place += prod(shape)


def _scale_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a tensor's scales, by which it can be multiplied."""
    if len(shape) != 2:
        return (1,) * len(shape)
    return (1, shape[1]) if ".lora_B." in name else (shape[0], 1)


def _scales_of(form: Form) -> int:
    return sum(prod(_scale_shape(name, shape)) for name, shape in form.shapes.items())


def _largest(name: str, piece: Tensor) -> Tensor:
    """The size of the largest number that each scale is for, in the shape of the scales."""
    shape = _scale_shape(name, piece.shape)
    if not piece.numel():
        return torch.zeros(shape)
    if len(shape) != 2:
        return piece.abs().max().view(shape)
    return piece.abs().amax(dim=0 if shape[0] == 1 and ".lora_B." in name else 1, keepdim=True)


def _halves(numbers: NDArray[np.float32]) -> NDArray[np.float16]:
    return np.clip(numbers, -LARGEST_HALF, LARGEST_HALF).astype(_FLOAT16)


def _vector(numbers: NDArray[np.generic]) -> Tensor:
    """As float32, in memory of its own."""
    return torch.from_numpy(numbers.astype(np.float32))
