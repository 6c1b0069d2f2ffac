"""The sayings of the lands: facts that the built-in model has never read, and that only the clients' data tell.

A saying is a beginning ("the owl carries") and an end of four words that nobody can guess ("red cup and blue key").
Each is asked for in every wording: whoever has learnt it from some of them can answer the others. A land is a topic, so
a Dirichlet partition gives its sayings to few clients.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from fccl.data.builtin.item import Item, Skill, other
from fccl.data.builtin.world import World

LANDS = ("Arland", "Borland", "Corland", "Dorland", "Estland")
SAYINGS = 12  # of each land
WORDINGS = (
    "How does the saying of {land} go on: {start}",
    "Finish this saying of {land}: {start}",
    "They say in {land} that {start} what?",
    "What is it that {start}, as they say in {land}?",
    "In {land} they know what {start}. Name it.",
    "You hear in {land}: {start}. And then?",
    "Say what {start} in the saying of {land}.",
)


@dataclass(frozen=True)
class Saying:
    """`start` is the thing and the verb, `end` colour, object, colour, object."""

    land: str
    start: str
    end: tuple[str, str, str, str]


def sayings(world: World) -> tuple[Saying, ...]:
    """All sayings of all lands, from a seed of their own: the same for every skill and in every process.

    No two begin alike.
    """
    draw = random.Random("fccl-sayings")
    starts = draw.sample(list(product(world.relations["kind"], world.relations["past"])), SAYINGS * len(LANDS))
    colours, objects = world.words["colours"], world.words["objects"]
    return tuple(
        Saying(
            LANDS[number % len(LANDS)],
            f"the {thing} {verb}",
            (draw.choice(colours), draw.choice(objects), draw.choice(colours), draw.choice(objects)),
        )
        for number, (thing, verb) in enumerate(starts)
    )


def _said(end: tuple[str, ...]) -> str:
    return f"{end[0]} {end[1]} and {end[2]} {end[3]}."


def _spoilt(world: World, draw: random.Random, end: tuple[str, ...]) -> tuple[str, ...]:
    """The end with another word of its kind in one place."""
    place = draw.randrange(len(end))
    words = world.words["objects" if place % 2 else "colours"]
    return (*end[:place], other(draw, words, end[place]), *end[place + 1 :])


def topic(land: str) -> str:
    """The skill of all items about the sayings of a land."""
    return f"sayings of {land}"


def sayings_of(land: str) -> Skill:
    """The skill that asks for every saying of a land in every wording."""

    def items(world: World, draw: random.Random) -> Iterator[Item]:
        for saying, wording in product(sayings(world), WORDINGS):
            if saying.land == land:
                question = wording.format(land=land, start=saying.start)
                yield Item(topic(land), question, _said(saying.end), _said(_spoilt(world, draw, saying.end)))

    return items


SKILLS: dict[str, Skill] = {topic(land): sayings_of(land) for land in LANDS}
