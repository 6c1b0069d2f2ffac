"""Peers of the original protocol: their adapter files, and the names in them.

An original peer takes its adapter out of a PEFT model by the names that the parameters have in memory
(`….lora_A.default.weight`) and saves it with `torch.save`. Here an adapter has the names that PEFT saves
(`….lora_A.weight`). Both are read, one is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

from torch import Tensor

from fccl.adapters.adapter import Adapter, Form
from fccl.adapters.torch_files import read_torch_file, torch_bytes
from fccl.errors import AdapterError

_PEFT_ADAPTER = "default"  # PEFT's own name for a model's first adapter
_NUMBER_BYTES = 4
_FILE_BYTES = 65_536  # what torch writes around the tensors: headers, versions, and for each of them
_TENSOR_BYTES = (
    4_096  # a header, padding, a place in the list of records and some lines of the pickle, with its name four times
)


def in_memory(name: str) -> str:
    """A factor's name in a PEFT model that is loaded: `x.lora_A.weight` is `x.lora_A.default.weight`."""
    module, _, kind = name.rpartition(".")
    return f"{module}.{_PEFT_ADAPTER}.weight" if module and kind == "weight" else f"{name}.{_PEFT_ADAPTER}"


def original_bytes(adapter: Adapter) -> bytes:
    """The file that an original peer loads: names as in memory."""
    return torch_bytes({in_memory(name): tensor for name, tensor in adapter.tensors.items()})


@dataclass(frozen=True)
class OriginalReader:
    """Reads the adapter files of original peers, of one form."""

    form: Form

    @property
    def max_bytes(self) -> int:
        """No such file is longer."""
        numbers = sum(prod(shape) for shape in self.form.shapes.values())
        return numbers * _NUMBER_BYTES + len(self.form.shapes) * _TENSOR_BYTES + _FILE_BYTES

    def read(self, content: bytes | bytearray, source: str) -> Adapter:
        """The adapter in a file's content, under PEFT's saved names.

        Raises `AdapterError`; runs nothing of the file.
        """
        if len(content) > self.max_bytes:
            raise AdapterError(f"{source} has {len(content):,} bytes, at most {self.max_bytes:,} are possible")
        found = read_torch_file(content, source)
        tensors: dict[str, Tensor] = {}
        for name, tensor in found.items():
            saved = self._saved.get(name, name)
            if saved in tensors:
                raise AdapterError(f"{source} has {saved} twice, under both of its names")
            tensors[saved] = tensor
        try:
            self.form.require(Form({name: tuple(tensor.shape) for name, tensor in tensors.items()}))
            return Adapter(tensors)
        except AdapterError as error:
            raise AdapterError(f"{source}: {error}") from error

    @cached_property
    def _saved(self) -> dict[str, str]:
        """A factor's saved name, by its name in memory."""
        return {in_memory(name): name for name in self.form.shapes}
