"""A global adapter in few bytes: as its change of the one before, or as the seed that it was drawn from.

A client that has the adapter of the round before gets the change. Round 0 of a run begins with an adapter whose A is
drawn from the run's seed and whose B is zero (`fccl.adapters.ranks.initial`): names, shapes and seed are all of it.
Whatever a client makes of such bytes has to have the hash that the server's task names; else it reads the whole file.

    8  b"fccl new"      8  seed      then the header of the whole file (safetensors), and none of its numbers
"""

from __future__ import annotations

from collections.abc import Iterable

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.coded import HEADER_BYTES, MAGIC, CodedReader, base_of
from fccl.adapters.ranks import initial
from fccl.adapters.tensor_files import header_of, shapes_of
from fccl.codecs import CodecSpec
from fccl.errors import AdapterError

_DRAWN = b"fccl new"
_START = len(_DRAWN) + 8


def drawn(adapter: Adapter, seed: int) -> bytes | None:
    """The bytes of a fresh adapter of this seed; None where the adapter is another one."""
    if seed.bit_length() > 64 or initial(adapter.form, seed).sha256 != adapter.sha256:
        return None
    return _DRAWN + seed.to_bytes(8, "little") + header_of(adapter.form.shapes)


def read_short(content: bytearray, held: Iterable[Adapter], spec: CodecSpec, length: int, source: str) -> Adapter:
    """The adapter in such bytes; `held` are those that the reader has, `length` is that of the whole file.

    Raises `AdapterError` for anything else, and for the change of an adapter that the reader does not have. Takes no
    more memory than the whole file would.
    """
    if content[: len(_DRAWN)] == _DRAWN:
        form = Form(shapes_of(content[_START:], length, source))
        if any(".lora_A." in name and (len(shape) != 2 or not shape[1]) for name, shape in form.shapes.items()):
            raise AdapterError(f"{source} has a lora_A that is no matrix")
        return initial(form, int.from_bytes(content[len(_DRAWN) : _START], "little"))
    if content[: len(MAGIC)] != MAGIC or len(content) < HEADER_BYTES:
        raise AdapterError(f"{source} is no adapter in few bytes")
    named = base_of(content)
    for base in held:
        if base.sha256 == named:
            return CodedReader(base, spec).read(content, source)
    raise AdapterError(f"{source} is the change of an adapter that is not here")
