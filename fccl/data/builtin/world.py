"""The small world: what is true in it.

`world.toml` holds the tables. This module reads them and draws the people (who lives where, does what, eats what) from
a fixed seed: every process sees the same world. Nothing here knows of sentences or instructions.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

RELATIONS = ("opposite", "colour", "kind", "sound", "home", "young", "use", "past", "plural")
PERSON_ATTRIBUTES = ("job", "town", "pet", "food")


@dataclass(frozen=True)
class Person:
    """One invented person and the four things that are known of them."""

    name: str
    job: str
    town: str
    pet: str
    food: str


@dataclass(frozen=True)
class World:
    """All that is true: relations (subject -> value), ordered series, people, towns and the words lists are made of."""

    relations: Mapping[str, Mapping[str, str]]
    series: Mapping[str, tuple[str, ...]]
    people: tuple[Person, ...]
    land_of: Mapping[str, str]
    river_of: Mapping[str, str]
    words: Mapping[str, tuple[str, ...]]

    def values(self, relation: str) -> tuple[str, ...]:
        """The distinct values of one relation or of one attribute of people, in order."""
        if relation in PERSON_ATTRIBUTES:
            return tuple(sorted({getattr(person, relation) for person in self.people}))
        return tuple(dict.fromkeys(self.relations[relation].values()))


@cache
def load_world() -> World:
    """Read the world. The same value in every process: nothing is drawn from the clock."""
    tables = tomllib.loads(resources.files(__package__).joinpath("world.toml").read_text(encoding="utf-8"))
    draw = random.Random("fccl-world")
    source = tables["people"]
    opposite = tables["opposite"]
    both_ways = opposite | {value: subject for subject, value in opposite.items()}
    people = tuple(
        Person(name, *(draw.choice(source[column]) for column in ("jobs", "towns", "pets", "foods")))
        for name in source["names"]
    )
    return World(
        relations={name: tables[name] for name in RELATIONS} | {"opposite": both_ways},
        series={name: tuple(values) for name, values in tables["order"].items()},
        people=people,
        land_of={town: draw.choice(source["lands"]) for town in source["towns"]},
        river_of={town: draw.choice(source["rivers"]) for town in source["towns"]},
        words={name: tuple(values) for name, values in tables["words"].items()},
    )


def article(noun: str) -> str:
    """`noun` with its indefinite article: "a fox", "an owl"."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"
