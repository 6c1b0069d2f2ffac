"""One recording for each size of a step's inputs."""

from dataclasses import dataclass, field

import pytest
import torch

from fccl.training import recorded
from fccl.training.recorded import RecordedSteps, eager, recorder_for

CPU = torch.device("cpu")


@dataclass
class Numbers:
    """Buffers of so many numbers."""

    values: torch.Tensor

    @property
    def size(self):
        return len(self.values)

    def fill(self, other):
        self.values.copy_(other.values)

    def to(self, device):
        return Numbers(self.values.to(device, copy=True))


@dataclass
class Sum:
    """A step: adds its numbers up, unless it must have no effect. `done` are the addresses that it has read."""

    total: float = 0.0
    quiet: bool = False
    done: list = field(default_factory=list)

    def __call__(self, numbers):
        self.done.append(numbers.values.data_ptr())
        self.total += 0.0 if self.quiet else float(numbers.values.sum())

    def without_effect(self, record):
        self.quiet = True
        record()
        self.quiet = False


def numbers(*values):
    return Numbers(torch.tensor(values))


@pytest.mark.parametrize("warm_up", [0, 3])
def test_a_step_is_recorded_once_for_each_size_and_recording_it_has_no_effect(warm_up):
    step, records = Sum(), []

    def record(one):
        records.append(one)
        for _ in range(warm_up):
            one()
        return one

    steps = RecordedSteps(step, step.without_effect, CPU, record)
    for inputs in (numbers(1.0, 2.0), numbers(5.0), numbers(10.0, 20.0), numbers(100.0)):
        steps(inputs)
    assert step.total == 138.0
    assert len(records) == 2
    assert len(set(step.done)) == 2  # the buffers of the first of each size


def test_the_least_used_recording_goes(monkeypatch):
    monkeypatch.setattr(recorded, "MOST_RECORDED", 2)
    step, sizes = Sum(), []
    steps = RecordedSteps(step, step.without_effect, CPU, lambda one: sizes.append(1) or one)
    for inputs in (numbers(1.0), numbers(1.0, 1.0), numbers(2.0), numbers(0.0, 0.0, 1.0), numbers(3.0)):
        steps(inputs)
    assert len(sizes) == 3
    steps(numbers(1.0, 1.0))
    assert len(sizes) == 4
    assert step.total == 11.0


def test_a_cpu_has_no_recorder_and_a_gpu_has_graphs():
    assert recorder_for(CPU) is None
    called = []
    assert eager(called.append) == called.append
