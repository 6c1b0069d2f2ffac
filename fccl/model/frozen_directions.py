"""The trailing directions of a wide adapter, held in the base weights of the target modules."""

from __future__ import annotations

from dataclasses import dataclass, field

from fccl.model import peft_alone  # noqa: F401 - before PEFT

# isort: split
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fccl.adapters.adapter import Adapter
from fccl.adapters.ranks import pairs
from fccl.model.bnb_layers import Quantised, quantised_of
from fccl.model.language_model import cpu_threads


@dataclass
class FrozenDirections:
    """The directions that are not trained: `scale` B A, added to the base weights of the target modules.

    They are always added to the weights as they were at first, of which a copy is made once there is something to add.
    The sum is made in float64 on one thread and rounded once. The same directions give the same bits, whatever was held
    before and however many threads the process has. Beside a matrix in few bits they stand by themselves
    (`fccl.model.bnb_layers`).
    """

    model: PeftModel
    scale: float
    plain: dict[str, Tensor] = field(default_factory=dict)  # the weights without them, by the name of A
    _held: tuple[Adapter | None, ...] = (None,)  # what is in the weights; empty while that is not certain

    def hold(self, directions: Adapter | None) -> None:
        """Put these in the place of those that are there. Costs little when they are the same.

        Call it without gradients.
        """
        if self._held and _same_bits(self._held[0], directions):
            return
        self._held = ()
        if directions is None:
            self._take_out()
        else:
            with cpu_threads(1):
                self._add(directions)
        self._held = (directions,)

    def _take_out(self) -> None:
        for name, plain in self.plain.items():
            self._base(name).weight.copy_(plain)
        for module in self.model.modules():
            if isinstance(module, Quantised):
                module.hold(None, None)

    def _add(self, directions: Adapter) -> None:
        for pair in pairs(directions.form):
            layer, a, b = self._base(pair.a), directions.tensors[pair.a], directions.tensors[pair.b]
            if (quantised := quantised_of(layer)) is not None:
                quantised.hold(self.scale * b, a)
            else:
                self._add_to(layer, pair.a, b.double() @ a.double())

    def _add_to(self, layer: nn.Linear | Conv1D, name: str, product: Tensor) -> None:
        """Add scale B A, (out, in), to a layer's own weights."""
        plain = self.plain.setdefault(name, layer.weight.detach().cpu().clone())
        layer.weight.copy_(
            torch.add(plain.double(), product.T if isinstance(layer, Conv1D) else product, alpha=self.scale)
        )

    def _base(self, name: str) -> nn.Linear | Conv1D:
        """The module whose A has this name, under PEFT's wrapper."""
        layer: nn.Linear | Conv1D = self.model.get_submodule(name.partition(".lora_A.")[0]).base_layer
        return layer


def _same_bits(one: Adapter | None, other: Adapter | None) -> bool:
    if one is None or other is None:
        return one is other
    alike = ((tensor.view(torch.int32), other.tensors[name].view(torch.int32)) for name, tensor in one.tensors.items())
    return one.form == other.form and all(torch.equal(mine, theirs) for mine, theirs in alike)
