"""A step that is done many times over the same buffers: eagerly, or recorded as a CUDA graph.

Launching its kernels one by one takes a GPU longer than a small step's arithmetic. A graph launches them all at once.
It repeats the very kernels, sizes and addresses that it has seen. So a step that can be recorded reads and writes
buffers that stay, has no shape that depends on a value, and reads nothing back to the host.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, Self, TypeVar

import torch

Step = Callable[[], None]
Recorder = Callable[[Step], Step]  # a step, and what repeats it
MOST_RECORDED = 32  # sizes of a batch; a run of the `gpt2` preset has about 20
_WARM_UP = 3  # what libraries set up at their first calls must not be recorded


class Buffers(Protocol):
    """The inputs of a step. Two of the same size have the same shapes."""

    @property
    def size(self) -> Any:
        """A key: what is recorded for one serves all others of this size."""
        ...

    def fill(self, other: Self) -> None:
        """Copy the other's content in."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        ...


def eager(step: Step) -> Step:
    """The twin of `CudaGraphs` on every device: the step itself, done anew each time."""
    return step


@dataclass(eq=False)
class CudaGraphs:
    """Records steps on the present CUDA device. All share one pool of memory, since only one is at work at a time."""

    _pool: Any = field(default_factory=lambda: torch.cuda.graph_pool_handle())

    def __call__(self, step: Step) -> Step:
        """Does the step a few times, then records it: it must not matter how often it is done."""
        side, now = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
        side.wait_stream(now)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                step()
        now.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            step()
        return graph.replay  # type: ignore[no-any-return, unused-ignore]


def recorder_for(device: torch.device) -> Recorder | None:
    """The recorder of a device; None where launching kernels costs nothing, so that padding to few sizes would."""
    return CudaGraphs() if device.type == "cuda" else None


BuffersType = TypeVar("BuffersType", bound=Buffers)


@dataclass(eq=False)
class RecordedSteps(Generic[BuffersType]):
    """One recording for each size of its inputs; the least used of more than `MOST_RECORDED` goes.

    `without_effect` puts the step in a state in which doing it changes nothing, for as long as it is recorded.
    """

    step: Callable[[BuffersType], None]
    without_effect: Callable[[Step], None]
    device: torch.device
    record: Recorder = eager
    _kept: OrderedDict[Any, tuple[BuffersType, Step]] = field(default_factory=OrderedDict)

    def __call__(self, inputs: BuffersType) -> None:
        """Do the step on these inputs, which may be on another device. The first of a size become the buffers."""
        if inputs.size in self._kept:
            self._kept.move_to_end(inputs.size)
            self._kept[inputs.size][0].fill(inputs)
        else:
            self._keep(inputs.to(self.device))
        self._kept[inputs.size][1]()

    def _keep(self, inputs: BuffersType) -> None:
        made: list[Step] = []
        self.without_effect(lambda: made.append(self.record(lambda: self.step(inputs))))
        self._kept[inputs.size] = inputs, made[0]
        if len(self._kept) > MOST_RECORDED:
            self._kept.popitem(last=False)
