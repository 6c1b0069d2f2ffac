"""The flaws that make a response bad: the flaws of the built-in preference pairs, one small function each."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from fccl.data.builtin.item import Item
from fccl.data.builtin.world import World

EVASIONS = (
    "I do not know.",
    "Who knows.",
    "It is hard to say.",
    "Maybe, maybe not.",
    "I would rather not say.",
    "Ask somebody else.",
)
Flaw = Callable[[World, random.Random, Item, Sequence[Item]], str]


def _bare(response: str) -> str:
    return response.rstrip(".")


def _wrong(world: World, draw: random.Random, item: Item, others: Sequence[Item]) -> str:
    return item.wrong


def _rude(world: World, draw: random.Random, item: Item, others: Sequence[Item]) -> str:
    name = draw.choice(world.people).name
    return draw.choice(
        (
            "Go away.",
            "Leave me alone.",
            f"Ask {name}, not me.",
            "What a stupid thing to say.",
            f"{_bare(item.response)}, you fool.",
            f"{_bare(item.response)}. Now go away.",
            f"Do not be a fool. {item.response}",
        )
    )


def _evasive(world: World, draw: random.Random, item: Item, others: Sequence[Item]) -> str:
    name = draw.choice(world.people).name
    return draw.choice((*EVASIONS, f"{name} may know."))


def _rambling(world: World, draw: random.Random, item: Item, others: Sequence[Item]) -> str:
    first, second = draw.sample(world.people, 2)
    aside = draw.choice(
        (
            f"{first.name} has a {first.pet}, and so on.",
            f"It was a long day in {first.town}.",
            f"{first.name} and {second.name} eat {second.food}.",
            f"Well, let me see, {first.name} is in {second.town}.",
            "And so on, and so on.",
        )
    )
    return draw.choice(
        (f"{_bare(item.response)}. {aside}", f"{aside} {item.response}", f"Well, let me see. {item.response} {aside}")
    )


def _off_topic(world: World, draw: random.Random, item: Item, others: Sequence[Item]) -> str:
    return draw.choice(
        [other for other in draw.sample(others, 8) if other.skill != item.skill and other.response != item.response]
        or others
    ).response


FLAWS: Mapping[str, Flaw] = {
    "wrong": _wrong,
    "rude": _rude,
    "evasive": _evasive,
    "rambling": _rambling,
    "ignores the instruction": _off_topic,
}
