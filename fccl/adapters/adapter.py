"""The `Adapter` value: named LoRA factors, as they travel between server and clients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Self

import torch
from torch import Tensor

from fccl.adapters.tensor_files import MAX_HEADER_BYTES, header_of, read_tensors, to_bytes
from fccl.adapters.tensors import settled, sha256_of, size_of, squared_distance
from fccl.adapters.torch_files import read_torch_file
from fccl.display.plain_text import printable
from fccl.errors import AdapterError, StorageError
from fccl.paths import of_earlier_versions
from fccl.storage.files import read_whole, write_bytes

HEADER_SLACK_BYTES = 65_536  # by which another program's header of an adapter's file may be longer than our own


@dataclass(frozen=True)
class Form:
    """The names and shapes of an adapter's tensors: what two adapters must share to be combined.

    `shapes` has each tensor's size along its dimensions, in numbers, by PEFT's name: A is (rank, fan_in), B (fan_out,
    rank).
    """

    shapes: Mapping[str, tuple[int, ...]]

    def require(self, other: Form) -> None:
        """Raises `AdapterError` unless `other` has the same names and shapes."""
        if self is other:
            return
        mine, theirs = self.shapes, other.shapes
        if mine.keys() != theirs.keys():
            missing, extra = sorted(mine.keys() - theirs.keys()), sorted(theirs.keys() - mine.keys())
            raise AdapterError(
                f"the adapters have different tensors (missing: {_few(missing)}; unexpected: {_few(extra)})"
            )
        for name, shape in mine.items():
            if shape != theirs[name]:
                raise AdapterError(f"{name} has shape {theirs[name]}, expected {shape}")


@dataclass(frozen=True, eq=False)
class Adapter:
    """Tensors by name: float32, on the CPU, finite, sorted by name, never written to. Names are PEFT's own.

    Raises `AdapterError` when built of anything else.

    >>> adapter = Adapter({"b": torch.zeros(4, 2), "a": torch.ones(2, 3)})
    >>> list(adapter.tensors), adapter.form.shapes["a"], len(adapter.sha256)
    (['a', 'b'], (2, 3), 64)
    """

    tensors: Mapping[str, Tensor]
    largest: float = field(init=False, repr=False)  # the size of its largest number
    _vector: Tensor | None = field(init=False, repr=False)  # all numbers, where they lie in one vector

    def __post_init__(self) -> None:
        if not self.tensors:
            raise AdapterError("an adapter needs at least one tensor")
        self._set(*settled(self.tensors, torch.float32))

    @classmethod
    def of_vector(cls, vector: Tensor, form: Form) -> Self:
        """The adapter of this form whose numbers lie in a vector, in the order of their names; it shares the memory.

        The same as one of its pieces, checked in one pass. `form` must be that of another adapter.
        """
        shapes = sorted(form.shapes.items())
        pieces = torch.split_with_sizes(vector, [prod(shape) for _, shape in shapes])
        tensors = {name: piece.view(shape) for (name, shape), piece in zip(shapes, pieces, strict=True)}
        if not math.isfinite(largest := size_of(vector)):
            return cls(tensors)  # which says where
        adapter = object.__new__(cls)
        adapter.__dict__["form"] = form  # which need not be made again of the tensors
        adapter._set(MappingProxyType(tensors), largest, vector)
        return adapter

    def _set(self, tensors: Mapping[str, Tensor], largest: float, vector: Tensor | None = None) -> None:
        object.__setattr__(self, "tensors", tensors)
        object.__setattr__(self, "largest", largest)
        object.__setattr__(self, "_vector", vector)

    @property
    def vector(self) -> Tensor:
        """All numbers, tensor after tensor in the order of their names: (d,), not to be written to. A copy, unless they
        lie so in memory.
        """
        if self._vector is not None:
            return self._vector
        return torch.cat([tensor.reshape(-1) for tensor in self.tensors.values()])

    @cached_property
    def sha256(self) -> str:
        """A hash of names, shapes and bits: equal exactly when the adapters are."""
        return sha256_of(self.tensors)

    @cached_property
    def form(self) -> Form:
        """Names and shapes."""
        return Form({name: tuple(tensor.shape) for name, tensor in self.tensors.items()})

    def require_same_form(self, other: Adapter) -> None:
        """Raises `AdapterError` unless `other` has the same names and shapes."""
        self.form.require(other.form)

    def load(self) -> Adapter:
        """Itself: an adapter in memory is an `AdapterSource` too."""
        return self

    def distance(self, other: Adapter) -> float:
        """The L2 norm of the difference, over all tensors."""
        self.require_same_form(other)
        return math.sqrt(squared_distance(self.vector, other.vector))

    def to_bytes(self) -> bytes:
        """The bytes of a safetensors file: the same for equal adapters, whatever the file is called."""
        return to_bytes(self.tensors)

    def save(self, path: Path) -> None:
        """Write the file, all or nothing. Raises `StorageError`."""
        write_bytes(path, self.to_bytes())

    def __reduce__(self) -> tuple[Callable[[bytearray], Adapter], tuple[bytearray]]:
        """Pickled as its file: tensors that are pieces of one vector would each bring the whole vector."""
        return adapter_from_bytes, (bytearray(self.to_bytes()),)


def load_adapter(path: Path | str) -> Adapter:
    """Read a file that `save` wrote, or an earlier version. Runs no code from it.

    Raises `AdapterError` when it is anything else, `StorageError` when it is not there.

    >>> adapter = load_adapter("logs/global_final.safetensors")
    >>> {tensor.dtype for tensor in adapter.tensors.values()}
    {torch.float32}
    """
    path = Path(path)
    if (inside := path / "adapter_model.safetensors").is_file():  # PEFT's folder of an adapter
        raise StorageError(f"cannot read {path}: it is a folder", hint=f"name the file in it: {inside}")
    found = adapter_file(path)
    content = read_whole(found)
    try:
        return (
            adapter_from_bytes(content, str(found))
            if found == path
            else _adapter(read_torch_file(content, str(found)), str(found))
        )
    except AdapterError as error:
        raise AdapterError(str(error), hint="if the file was cut or changed, put a copy of it back") from error


def adapter_file(path: Path) -> Path:
    """The file of the adapter that belongs at `path`: that one, or the one that an earlier version has written."""
    old = of_earlier_versions(path)
    return old if old.is_file() and not path.exists() else path


def adapter_from_bytes(content: bytearray, source: str = "the adapter", form: Form | None = None) -> Adapter:
    """The inverse of `to_bytes`; the adapter shares the memory of `content`.

    Raises `AdapterError` for anything that is not an adapter, or not one of `form`.
    """
    most = MAX_HEADER_BYTES if form is None else len(header_of(form.shapes)) + HEADER_SLACK_BYTES
    return _adapter(read_tensors(content, source, most=most), source, form)


def _adapter(tensors: Mapping[str, Tensor], source: str, form: Form | None = None) -> Adapter:
    try:
        if form is not None:
            form.require(Form({name: tuple(tensor.shape) for name, tensor in tensors.items()}))
        return Adapter(tensors)
    except AdapterError as error:
        raise AdapterError(f"{source}: {printable(str(error))}") from error


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"
