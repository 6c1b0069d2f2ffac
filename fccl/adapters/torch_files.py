"""Files of `torch.save` that somebody else wrote, read without an unpickler.

The pickle in such a file is a program. This module knows the few instructions that describe named float32 tensors, and
no others. It runs none of them: it notes which numbers of which record each tensor takes. Nothing is called, and no
memory is taken for a claim that the records' own sizes do not bear out. So no file takes more than a few times its own
length.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any

import torch
from torch import Tensor

from fccl.errors import AdapterError

MAX_RECORDS = 65_536  # one a tensor, and a handful
_PICKLE_BYTES = 65_536  # of a file without tensors; and for every record so many more, where a quarter is usual:
_PICKLE_BYTES_A_RECORD = 1_024
_MAX_DIMENSIONS = 8
_NUMBER_BYTES = 4
_ENTRY = b"PK\x01\x02"  # begins every entry of a zip file's list of records
_FOLDER = 0x10  # among the zip format's attributes of a record
_PROTOCOL = 2  # of pickle: torch writes this one, and its own safe reader knows no other


def torch_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of a `torch.load`-able file of named tensors, each with a storage of its own."""
    buffer = io.BytesIO()
    own = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    torch.save(own, buffer)
    return buffer.getvalue()


def read_torch_file(content: bytes | bytearray, source: str) -> dict[str, Tensor]:
    """The named float32 tensors in a file's content, on the CPU and contiguous. Runs nothing of it.

    Takes what torch 1.13 and later write of a dict or an `OrderedDict`; views of larger storages, parameters and
    tensors of a GPU too. Raises `AdapterError` when it is anything else, when a record is damaged, or when a shape
    claims more numbers than the file has.
    """
    try:
        archive = _plain_zip(content)
        folder, pickled = _program(archive)
        return _tensors(archive, folder, _Machine().run(pickled))
    except AdapterError as error:
        raise AdapterError(f"{source} {error}") from error
    except Exception as error:  # a dozen kinds, for a broken file; all of them mean the same here
        raise AdapterError(f"{source} is not a readable adapter file ({type(error).__name__})") from error


def _plain_zip(content: bytes | bytearray) -> zipfile.ZipFile:
    """`torch.save` writes a zip file without compression, so nothing in it can be larger than it is."""
    if content[:4] != b"PK\x03\x04":
        raise AdapterError("is not a file of torch.save")
    if content.count(_ENTRY) > MAX_RECORDS:  # before a Python object is made for each
        raise AdapterError(f"has more than {MAX_RECORDS:,} records")
    archive = zipfile.ZipFile(io.BytesIO(content))
    records = archive.infolist()
    if len({record.filename for record in records}) < len(records):
        raise AdapterError("has two records of one name")
    stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
    if not stored or sum(record.file_size for record in records) > len(content):
        raise AdapterError("is compressed, which no adapter file is")
    if any(record.external_attr & _FOLDER for record in records):
        raise AdapterError("has a folder where an adapter file has numbers")
    if archive.testzip() is not None:
        raise AdapterError("is not a readable adapter file (a record is damaged)")
    return archive


def _program(archive: zipfile.ZipFile) -> tuple[str, bytes]:
    """The folder that all records are in, and the pickle there."""
    names = archive.namelist()
    programs = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(programs) != 1:
        raise AdapterError("has no data.pkl, or two, where a file of torch.save has one")
    folder = programs[0].removesuffix("/data.pkl")
    if f"{folder}/byteorder" in names and archive.read(f"{folder}/byteorder") != b"little":
        raise AdapterError("has numbers with their bytes in another order than little-endian")
    limit = _PICKLE_BYTES + _PICKLE_BYTES_A_RECORD * len(names)
    if archive.getinfo(programs[0]).file_size > limit:
        raise AdapterError(f"has a data.pkl of more than {limit:,} bytes, which so few tensors do not need")
    return folder, archive.read(f"{folder}/data.pkl")


class _Global(Enum):
    """The classes and functions that the program may name. They stay names."""

    ORDERED = "collections OrderedDict"
    TENSOR = "torch._utils _rebuild_tensor_v2"
    PARAMETER = "torch._utils _rebuild_parameter"
    FLOATS = "torch FloatStorage"


@dataclass(frozen=True)
class _Storage:
    """A record of float32 numbers, by its key, and how many it is said to have."""

    key: str
    length: int


@dataclass(frozen=True)
class _View:
    """A tensor as the program describes it: numbers of a storage, from `offset` on, `stride` apart along each
    dimension.
    """

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def last(self) -> int:
        """Where its last number is in the storage."""
        return self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))

    def of(self, numbers: Tensor) -> Tensor:
        """It, as a tensor of its own order."""
        return numbers.as_strided(self.shape, self.stride, self.offset).contiguous()


def _tensors(archive: zipfile.ZipFile, folder: str, views: Mapping[str, _View]) -> dict[str, Tensor]:
    """The tensors' numbers, when the records have them all."""
    storages = {view.storage: f"{folder}/data/{view.storage.key}" for view in views.values()}
    for storage, record in storages.items():
        if record not in archive.NameToInfo or archive.getinfo(record).file_size != storage.length * _NUMBER_BYTES:
            raise AdapterError(f"has no record of {storage.length:,} float32 numbers where its data.pkl says so")
    _require_numbers_for(views)
    numbers = {storage: _numbers(archive.read(record)) for storage, record in storages.items()}
    return {name: view.of(numbers[view.storage]) for name, view in views.items()}


def _require_numbers_for(views: Mapping[str, _View]) -> None:
    """No view leaves its storage, and all together have no more numbers than all storages: a stride of 0 makes none."""
    for name, view in views.items():
        if prod(view.shape) == 0 or view.last >= view.storage.length:
            raise AdapterError(f"has a shape for {name[:200]!r} that its {view.storage.length:,} numbers do not fill")
    storages = {view.storage for view in views.values()}
    if sum(prod(view.shape) for view in views.values()) > sum(storage.length for storage in storages):
        raise AdapterError("has shapes that claim more numbers than its records have")


def _numbers(record: bytes) -> Tensor:
    return torch.frombuffer(bytearray(record), dtype=torch.float32)


class _Machine:
    """Follows the program of a pickle with descriptions in place of objects. It knows `_STEPS` and nothing else."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.marked: list[list[object]] = []  # the stacks below each open mark
        self.memo: dict[int, object] = {}

    def run(self, pickled: bytes) -> dict[str, _View]:
        """The tensors that the program makes, by name."""
        end = None
        for instruction, argument, end in pickletools.genops(pickled):  # noqa: B007 - the last one's place is looked at
            step = _STEPS.get(instruction.name)
            if step is None:
                raise _unreadable(f"has the instruction {instruction.name}")
            step(self, argument)
        made = self.stack.pop()
        if self.stack or self.marked or end != len(pickled) - 1:
            raise _unreadable("goes on behind its end")
        if not isinstance(made, dict) or not all(isinstance(view, _View) for view in made.values()):
            raise AdapterError("does not hold named tensors")
        return made

    def push(self, value: object) -> None:
        self.stack.append(value)

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def pop_to_mark(self) -> list[object]:
        items, self.stack = self.stack, self.marked.pop()
        return items

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def tuple_of(self, count: int) -> None:
        if len(self.stack) < count:
            raise _unreadable("takes what is not there")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def store(self, pairs: list[object]) -> None:
        """Put names and values, one after the other, into the dict on top."""
        target, names = self.stack[-1], pairs[::2]
        if not isinstance(target, dict) or not all(isinstance(name, str) for name in names):
            raise AdapterError("does not hold named tensors")
        target.update(zip(names, pairs[1::2], strict=True))

    def store_one(self) -> None:
        value, name = self.stack.pop(), self.stack.pop()
        self.store([name, value])

    def storage(self) -> None:
        match self.stack.pop():
            case ("storage", _Global.FLOATS, str(key), str(), int(length)) if length > 0:
                self.push(_Storage(key, length))
            case _:
                raise _unreadable("describes a storage that is none of float32 numbers")

    def call(self) -> None:
        """Describe a tensor, a parameter or an empty `OrderedDict`: that is all that may be called."""
        arguments, called = self.stack.pop(), self.stack.pop()
        match called, arguments:
            case _Global.ORDERED, ():
                self.push({})
            case _Global.TENSOR, (_Storage() as numbers, start, tuple(shape), tuple(stride), bool(), dict(hooks)) if (
                not hooks
            ):
                self.push(_View(numbers, _sizes((start,))[0], _sizes(shape), _sizes(stride)))
            case _Global.PARAMETER, (_View() as view, bool(), dict(hooks)) if not hooks:
                self.push(view)
            case _:
                raise _unreadable("describes something else than tensors")

    def set_attributes(self) -> None:
        """Pass over the `_metadata` of a module's `state_dict()`, the only attribute that such a dict has."""
        attributes, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, dict) or not isinstance(attributes, dict) or attributes.keys() != {"_metadata"}:
            raise _unreadable("sets attributes that no adapter has")


def _unreadable(what: str) -> AdapterError:
    return AdapterError(f"is not a readable adapter file (its data.pkl {what})")


def _protocol(number: int) -> None:
    if number != _PROTOCOL:
        raise _unreadable(f"is of pickle's protocol {number}, expected {_PROTOCOL}")


def _global(text: str) -> _Global:
    with suppress(ValueError):
        return _Global(text)
    if text.startswith("torch ") and text.endswith("Storage"):
        raise AdapterError(f"has numbers in a {text[6:86]!r}, expected 'FloatStorage' (float32)")
    raise _unreadable(f"names {text[:80]!r}, which no adapter needs")


def _text(text: str) -> str:
    """A name that can be written down again: pickles may hold halves of characters."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _unreadable("has a text that is no Unicode")
    return text


def _sizes(numbers: tuple[object, ...]) -> tuple[int, ...]:
    """Sizes, strides or an offset: a few whole numbers, none of them negative."""
    found = tuple(number for number in numbers[:_MAX_DIMENSIONS] if type(number) is int and number >= 0)
    if len(found) < len(numbers):
        raise AdapterError("has a tensor whose shape, strides or offset are none")
    return found


_STEPS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, number: _protocol(number),
    "STOP": lambda machine, _: None,
    "MARK": lambda machine, _: machine.mark(),
    "GLOBAL": lambda machine, text: machine.push(_global(text)),
    "BINUNICODE": lambda machine, text: machine.push(_text(text)),
    "BININT": _Machine.push,
    "BININT1": _Machine.push,
    "BININT2": _Machine.push,
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "LONG_BINGET": lambda machine, index: machine.push(machine.memo[index]),
    "SETITEM": lambda machine, _: machine.store_one(),
    "SETITEMS": lambda machine, _: machine.store(machine.pop_to_mark()),
    "BINPERSID": lambda machine, _: machine.storage(),
    "REDUCE": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.set_attributes(),
}
