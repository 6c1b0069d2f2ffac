"""An `Item` is one task of the built-in data, a `Skill` a generator of the items of one kind."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from fccl.data.builtin.world import World


@dataclass(frozen=True)
class Item:
    """One task of one skill: an instruction, the right response, and a wrong one of the same form."""

    skill: str
    instruction: str
    response: str
    wrong: str


Skill = Callable[[World, random.Random], Iterator[Item]]


def other(draw: random.Random, options: Sequence[str], *not_these: str) -> str:
    """An option that is none of `not_these`."""
    return draw.choice([option for option in options if option not in not_these])
