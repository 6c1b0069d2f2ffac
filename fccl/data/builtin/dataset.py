"""The built-in data: instructions for SFT and preference pairs for VA, generated from the skills of the small world.

Seven items of ten become SFT examples, the others preference pairs, so the two ask about different things. Every
generation in every process gives the same rows.
"""

from __future__ import annotations

import random

from fccl.data.builtin.flaws import FLAWS
from fccl.data.builtin.item import Item
from fccl.data.builtin.skills import all_items
from fccl.data.builtin.world import load_world
from fccl.data.examples import PreferencePair, SftExample
from fccl.specs import named_seed

VA_SHARE = 0.3
# Demonstrations that people write are not all good: so many of the SFT responses have a flaw of manner, which value
# alignment has to take out again. `answer` always is the good response, and validation and test have no other
# (`fccl.data.prepare`).
UNVETTED_SHARE = 0.3
MANNERS = ("rude", "evasive", "rambling")


def _items() -> tuple[list[Item], list[Item]]:
    """The items of SFT and of VA."""
    items = all_items(load_world())
    draw = random.Random(named_seed(0, "builtin-va-items"))
    is_va = [draw.random() < VA_SHARE for _ in items]
    return [item for item, va in zip(items, is_va, strict=True) if not va], [
        item for item, va in zip(items, is_va, strict=True) if va
    ]


def builtin_sft() -> list[SftExample]:
    """The built-in instructions; the topic is the skill."""
    world, (items, _) = load_world(), _items()
    draw = random.Random(named_seed(0, "builtin-sft"))
    examples = []
    for item in items:
        response = (
            FLAWS[draw.choice(MANNERS)](world, draw, item, items) if draw.random() < UNVETTED_SHARE else item.response
        )
        examples.append(SftExample(item.instruction, response, topic=item.skill, answer=item.response))
    return examples


def builtin_va() -> list[PreferencePair]:
    """The built-in preference pairs, each flaw equally often; the topic is the skill."""
    world, (_, items) = load_world(), _items()
    draw = random.Random(named_seed(0, "builtin-va"))
    flaws = [list(FLAWS)[index % len(FLAWS)] for index in range(len(items))]
    draw.shuffle(flaws)
    return [
        PreferencePair(
            item.instruction, item.response, FLAWS[flaw](world, draw, item, items), topic=item.skill, flaw=flaw
        )
        for item, flaw in zip(items, flaws, strict=True)
    ]
