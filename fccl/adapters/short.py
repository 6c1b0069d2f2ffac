"""A global adapter in few bytes: as its change of the one before, or as the seed that it was drawn from.

A client that has the adapter of the round before gets the change. Round 0 of a run begins with an adapter whose A is
drawn from the run's seed and whose B is zero (`fccl.adapters.ranks.initial`): names, shapes and seed are all of it.
Whatever a client makes of such bytes has to have the hash that the server's task names; else it reads the whole file.

    8  b"fccl new"      8  seed      then the header of the whole file (safetensors), and none of its numbers

An adapter with middle matrices (`fccl.adapters.middle`) keeps its factors over a run. Its short form without a codec is

    8  b"fccl mid"      32 SHA-256 of the factors (`Adapter.sha256`)      then the file of its middle matrices
"""

from __future__ import annotations

from collections.abc import Iterable

from fccl.adapters.adapter import Adapter, Form, adapter_from_bytes
from fccl.adapters.coded import HEADER_BYTES, MAGIC, CodedReader, base_of
from fccl.adapters.middle import fixed_sha256, has_middle, joined, middle_form, moving
from fccl.adapters.ranks import initial
from fccl.adapters.tensor_files import header_of, shapes_of
from fccl.errors import AdapterError
from fccl.specs.codecs import CodecSpec

_DRAWN, _MIDDLE = b"fccl new", b"fccl mid"
_START = len(_DRAWN) + 8
_FACTORS = slice(len(_MIDDLE), len(_MIDDLE) + 32)


def drawn(adapter: Adapter, seed: int) -> bytes | None:
    """The bytes of a fresh adapter of this seed; None where the adapter is another one."""
    if seed.bit_length() > 64 or initial(adapter.form, seed).sha256 != adapter.sha256:
        return None
    return _DRAWN + seed.to_bytes(8, "little") + header_of(adapter.form.shapes)


def is_drawn(content: bytes | bytearray) -> bool:
    """Whether these are the bytes of a fresh adapter: a reader needs no other to make it."""
    return content[: len(_DRAWN)] == _DRAWN


def middle_alone(adapter: Adapter) -> bytes:
    """The bytes of the middle matrices of an adapter, for those who have its factors."""
    return _MIDDLE + bytes.fromhex(fixed_sha256(adapter)) + moving(adapter).to_bytes()


def read_short(content: bytearray, held: Iterable[Adapter], spec: CodecSpec, length: int, source: str) -> Adapter:
    """The adapter in such bytes; `held` are those that the reader has, `length` is that of the whole file.

    Raises `AdapterError` for anything else, and for the change of an adapter that the reader does not have. Takes no
    more memory than the whole file would.
    """
    if is_drawn(content):
        form = Form(shapes_of(content[_START:], length, source))
        if any(".lora_A." in name and (len(shape) != 2 or not shape[1]) for name, shape in form.shapes.items()):
            raise AdapterError(f"{source} has a lora_A that is no matrix")
        return initial(form, int.from_bytes(content[len(_DRAWN) : _START], "little"))
    if content[: len(_MIDDLE)] == _MIDDLE:
        return _between_factors(content, held, source)
    if content[: len(MAGIC)] != MAGIC or len(content) < HEADER_BYTES:
        raise AdapterError(f"{source} is no adapter in few bytes")
    named = base_of(content)
    for base in held:
        if moving(base).sha256 == named:
            return joined(CodedReader(moving(base), spec).read(content, source), base)
    raise AdapterError(f"{source} is the change of an adapter that is not here")


def _between_factors(content: bytearray, held: Iterable[Adapter], source: str) -> Adapter:
    """The adapter of these middle matrices, and of the factors of one that is held."""
    named, numbers = bytes(content[_FACTORS]).hex(), content[_FACTORS.stop :]
    for base in held:
        if has_middle(base.form) and fixed_sha256(base) == named:
            return joined(adapter_from_bytes(numbers, source, middle_form(base.form)), base)
    raise AdapterError(f"{source} is of factors that are not here")
