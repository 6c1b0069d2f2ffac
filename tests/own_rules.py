"""Modules of somebody else's rules, written into a folder."""

RULES = '''
import time
from pathlib import Path
from typing import ClassVar

import torch

from fccl.aggregation.mean import weighted_mean
from fccl.aggregation.protocol import Aggregated, Reweighing
from fccl.aggregation.state import ServerState
from fccl.aggregation.vectors import flat, size, unflat
from fccl.contribution.protocol import Weighing


class Last:
    """All weight to the last client."""

    def weigh(self, task, updates):
        return Weighing((0.0,) * (len(updates) - 1) + (1.0,), (0.0,) * len(updates))


class Asks:
    """Equal weights, by what it reads. In the second round it waits while there is a file `hold`, and says so."""

    def __init__(self, loss, verify_steps, contribution_temperature=3.0, more=7):
        self.loss, self.steps, self.temperature, self.more = loss, verify_steps, contribution_temperature, more

    def weigh(self, task, updates):
        self.loss.loss(task, task.adapter)
        while task.round == 1 and Path("hold").exists():
            Path("held").touch()
            time.sleep(0.01)
        return Weighing((1 / len(updates),) * len(updates), (0.0,) * len(updates))


class First(Reweighing):
    """The first update alone."""

    name: str = "first"
    krum_keep: int = 0
    uses_weights: ClassVar[bool] = False

    def weigh(self, before, parts):
        return (1.0,) + (0.0,) * (len(parts) - 1)


class Rolling:
    """Half of the way to the weighted mean, and half as far as last time again: it carries a state."""

    name = "rolling"

    def initial(self, adapter):
        return ServerState({"moved": torch.zeros(size(adapter.form), dtype=torch.float64)})

    def require(self, updates): ...

    def aggregate(self, before, parts, state):
        start = flat(before).double()
        mean = flat(weighted_mean(parts.counted())).double()
        moved = 0.5 * (mean - start) + 0.5 * state.vector("moved", len(start))
        return Aggregated(unflat(start + moved, before.form, self.name), ServerState({"moved": moved}), None)


class Needs:
    def __init__(self, something):
        self.something = something

    def weigh(self, task, updates): ...


class Raises:
    def __init__(self):
        raise RuntimeError("no\\nway")

    def weigh(self, task, updates): ...


class NoRule:
    pass


class Breaks:
    def weigh(self, task, updates):
        return updates[99]


NOT_A_CLASS = 3
'''

HOLD, HELD = "hold", "held"  # files in the folder of a process that weighs by `Asks`


def write(folder, name, text=RULES):
    """A module of this name in the folder."""
    (folder / f"{name}.py").write_text(text)
    return name
