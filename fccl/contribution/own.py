"""A weighing rule that somebody else wrote: what it returns is checked, what it raises is one line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fccl.contribution.protocol import Memory, Weigher, Weighing, with_memory
from fccl.errors import FcclError, FederationError
from fccl.records.run import Verification
from fccl.registry import said

if TYPE_CHECKING:
    from fccl.messages import ClientUpdate, FitTask

MEND = "fccl.testing.weigher.WeigherContract tests a class without a run"


@dataclass(frozen=True)
class OwnWeigher:
    """`weigher`, found under `path`. Raises `FederationError` where it breaks the contract of `Weigher`."""

    path: str
    weigher: Weigher

    def remembering(self, memory: Memory) -> Weigher:
        """The rule with this memory, where `weigher` asks for one."""
        try:
            return replace(self, weigher=with_memory(self.weigher, memory))
        except FcclError:
            raise
        except (Exception, SystemExit) as error:
            raise FederationError(f"{self.path} raised {said(error)}", hint=MEND, resumable=False) from error

    def weigh(self, task: FitTask, updates: Sequence[ClientUpdate]) -> Weighing:
        """As `weigher` does."""
        try:
            weighing = self.weigher.weigh(task, updates)
        except FcclError:
            raise
        except (Exception, SystemExit) as error:
            raise FederationError(f"{self.path} raised {said(error)}", hint=MEND, resumable=False) from error
        if broken := broken_promise(weighing, len(updates)):
            raise FederationError(f"{self.path}: {broken}", hint=MEND, resumable=False)
        return replace(weighing, memory=_as_floats(weighing.memory)) if weighing.memory else weighing


def broken_promise(weighing: object, updates: int) -> str:
    """In what way this is no weighing of so many updates; empty when it is one.

    >>> broken_promise(Weighing(weights=(0.5, 0.25), scores=(1.0, 1.0)), updates=2)
    'its weights are not >= 0 with sum 1'
    """
    if not isinstance(weighing, Weighing):
        return f"weigh returned {type(weighing).__name__}, not Weighing"
    try:
        return _broken_field(weighing, updates)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last is torch's, of more than one number
        return "its weights, scores or unfit are not tuples of numbers"


def _broken_field(weighing: Weighing, updates: int) -> str:
    """As `broken_promise`. Raises whatever counting and adding of what are no numbers raise."""
    counted = updates - len(set(weighing.unfit))
    if not set(weighing.unfit) <= set(range(updates)):
        return f"unfit is {weighing.unfit}, and there are {updates} updates"
    if (len(weighing.weights), len(weighing.scores)) != (counted, counted):
        return f"{len(weighing.weights)} weights and {len(weighing.scores)} scores for {counted} updates"
    if not all(map(math.isfinite, (*weighing.weights, *weighing.scores))):
        return "a weight or a score is not finite"
    if counted and (min(weighing.weights) < 0 or abs(math.fsum(weighing.weights) - 1) > 1e-9):
        return "its weights are not >= 0 with sum 1"
    if weighing.stretch and len(weighing.stretch) != counted:
        return f"{len(weighing.stretch)} factors of stretch for {counted} updates"
    if not all(map(math.isfinite, weighing.stretch)):
        return "a factor of stretch is not finite"
    if not isinstance(weighing.verification, Verification | None):
        return f"verification is {type(weighing.verification).__name__}, not Verification"
    if not all(isinstance(place, int) and place >= 0 for place in weighing.examples):
        return "examples are not places in the learn split"
    return "" if _is_memory(weighing.memory) else "its memory is not a few finite numbers for each client"


def _as_floats(memory: Memory) -> Memory:
    """The memory as a resumed run reads it."""
    return {client: tuple(map(float, numbers)) for client, numbers in memory.items()}


def _is_memory(memory: object) -> bool:
    """Whether a run can keep it with its state."""
    if not isinstance(memory, Mapping):
        return False
    clients = all(type(client) is int and client >= 0 for client in memory)
    if not clients or not all(type(numbers) is tuple for numbers in memory.values()):
        return False
    every = [number for numbers in memory.values() for number in numbers]
    numbers = all(isinstance(number, int | float) and not isinstance(number, bool) for number in every)
    try:
        return numbers and all(math.isfinite(number) for number in every)
    except OverflowError:  # a whole number that no float holds
        return False
