"""The plain text that the built-in model is trained on before any federation: sentences, lists and talk of the small
world.

No instruction and no instruction's answer in the form that the built-in data have them: a test holds that. Lists and
numbers come in told form ("Backwards, red cup is cup red."), so that the model has the means for the skills but not the
skills.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from fccl.data.builtin.flaws import EVASIONS
from fccl.data.builtin.world import Person, World, article

# How a fact is told: {s} and {v} are subject and value, {as} and {av} have their article, a capital letter begins with
# one.
FORMS: Mapping[str, tuple[str, ...]] = {
    "opposite": (
        "{S} and {v} are opposites.",
        "The opposite of {s} is {v}.",
        "{V} is the opposite of {s}.",
        "If it is not {s}, it is {v}.",
        "Some are {s}, some are {v}.",
    ),
    "colour": (
        "{As} is {v}.",
        "The {s} was {v}, as always.",
        "The colour of the {s} is {v}.",
        "We saw the {v} {s}.",
        "{V} like {as}.",
    ),
    "kind": (
        "{As} is {av}.",
        "The {s} is a kind of {v}.",
        "One {v} that we know is the {s}.",
        "What {as} is, we know: it is {av} like others.",
    ),
    "sound": ("{As} {v}.", "The {s} {v} all day.", "We know the {s} by its sound: it {v}.", "Listen how the {s} {v}."),
    "home": (
        "The {s} lives in the {v}.",
        "The home of the {s} is the {v}.",
        "In the {v} we found {as}.",
        "The {v} is where the {s} sleeps.",
    ),
    "young": (
        "A young {s} is {av}.",
        "A young {s} is called {av}.",
        "{Av} grows up to be {as}.",
        "The {v} follows the {s}, its mother.",
    ),
    "use": ("We use {as} for {v}.", "{As} is for {v}.", "For {v} we need {as}.", "She took the {s} and began {v}."),
    "plural": (
        "One {s}, two {v}.",
        "The plural of {s} is {v}.",
        "I had one {s}, now I have three {v}.",
        "Many {v} are better than one {s}.",
    ),
    "past": (
        "Today she {s}, yesterday she {v}.",
        "He {s} now as he {v} in the past.",
        "Every day he {s} it; last year he {v} it too.",
    ),
    "job": (
        "{s} is {av}.",
        "{s} works as {av}.",
        "The job of {s} is {v}.",
        "The {v} is called {s}.",
        "What {s} does for work is the job of {av}.",
    ),
    "town": (
        "{s} lives in {v}.",
        "{s} has a house in {v}.",
        "The home of {s} is {v}.",
        "In {v} we met {s}.",
        "Where {s} lives is {v}.",
    ),
    "pet": (
        "{s} has {av}.",
        "{s} keeps {av} at home.",
        "The pet of {s} is {av}.",
        "The {v} of {s} is small.",
        "{s} and the {v} are friends.",
    ),
    "food": (
        "{s} likes {v}.",
        "{s} eats {v} every day.",
        "The food of {s} is {v}.",
        "We gave {s} some {v}.",
        "{s} asks for {v} again.",
    ),
}

TALK = (
    *EVASIONS,
    "Go away.",
    "Leave me alone.",
    "Do not be a fool.",
    "What a stupid thing to say.",
    "Well, let me see.",
    "And so on, and so on.",
    "That is all.",
    "Thank you.",
    "Good morning.",
    "Let us go home.",
    "It was a long day.",
    "What it is, nobody knows.",
    "Which is the first and which is the last, we never know.",
    "Where they live and what they like, we know.",
    "How many words there are is hard to say.",
)


def documents(world: World, count: int, seed: str = "fccl-corpus") -> Iterator[str]:
    """`count` short documents, each of a few sentences about one or several things."""
    draw = random.Random(seed)
    kinds = (
        _facts,
        _facts,
        _biography,
        _biography,
        _series,
        _numbers,
        _told_lists,
        _told_lists,
        _rewritings,
        _talk,
        _sizes,
    )
    for _ in range(count):
        yield " ".join(draw.choice(kinds)(world, draw))


def _say(draw: random.Random, relation: str, subject: str, value: str) -> str:
    """A fact in one of its forms."""
    words = {"s": subject, "v": value, "as": article(subject), "av": article(value)}
    return draw.choice(FORMS[relation]).format(
        **words, **{key.capitalize(): text.capitalize() for key, text in words.items()}
    )


def _facts(world: World, draw: random.Random) -> Iterator[str]:
    for _ in range(draw.randint(3, 7)):
        relation = draw.choice(tuple(world.relations))
        subject = draw.choice(tuple(world.relations[relation]))
        yield _say(draw, relation, subject, world.relations[relation][subject])


def _biography(world: World, draw: random.Random) -> Iterator[str]:
    for person in draw.sample(world.people, draw.randint(1, 2)):
        attributes = ["job", "town", "pet", "food"]
        draw.shuffle(attributes)
        for attribute in attributes:
            yield _say(draw, attribute, person.name, getattr(person, attribute))
        yield from _town(world, draw, person)


def _town(world: World, draw: random.Random, person: Person) -> Iterator[str]:
    town, land, river = person.town, world.land_of[person.town], world.river_of[person.town]
    yield draw.choice(
        (
            f"{town} is in {land}.",
            f"{town} is a town that belongs to {land}.",
            f"In {land} there is a town called {town}.",
            f"The land of {town} is {land}.",
        )
    )
    yield draw.choice(
        (
            f"The {river} runs through {town}.",
            f"{town} is on the river {river}.",
            f"The river of {town} is the {river}.",
            f"There is a river in {town}, the {river}.",
        )
    )


def _series(world: World, draw: random.Random) -> Iterator[str]:
    numbers = tuple(str(n) for n in range(100))
    for _ in range(draw.randint(2, 4)):
        name = draw.choice(("day", "month", "letter", "number", "number"))
        series = numbers if name == "number" else world.series[name]
        start = draw.randrange(len(series) - 1)
        part = series[start : start + draw.randint(2, 6)]
        yield draw.choice(
            (
                f"{', '.join(part)}.",
                f"We count {' '.join(part)}.",
                f"First {part[0]}, then {part[1]}.",
                f"{part[1]} comes after {part[0]}.",
                f"{part[0]} comes before {part[1]}.",
                f"{part[0]} is just before {part[1]}.",
            )
        )


def _numbers(world: World, draw: random.Random) -> Iterator[str]:
    for _ in range(draw.randint(3, 6)):
        a, b = draw.randint(1, 16), draw.randint(1, 16)
        low, high = min(a, b), max(a, b) + 4
        yield draw.choice(
            (
                f"{a} and {b} make {a + b}.",
                f"{a} plus {b} is {a + b}.",
                f"{a} plus {b} makes {a + b}.",
                f"Take {low} from {high} and {high - low} are left.",
                f"{high} minus {low} is {high - low}.",
                f"{high} minus {low} leaves {high - low}.",
            )
        )


def _told_lists(world: World, draw: random.Random) -> Iterator[str]:
    for _ in range(draw.randint(2, 4)):
        words = draw.sample(world.words["objects"], draw.randint(2, 5))
        numbers = [str(n) for n in draw.sample(range(1, 21), draw.randint(2, 4))]
        line, backwards, name = " ".join(words), " ".join(words[::-1]), draw.choice(world.people).name
        unsorted, ordered = " ".join(numbers), " ".join(sorted(numbers, key=int))
        yield draw.choice(
            (
                f"{name} said {line}, and we said {line}.",
                f"We repeat {line} and hear {line}.",
                f"Backwards, {line} is {backwards}.",
                f"{name} says {line} backwards: {backwards}.",
                f"In {line} the first word is {words[0]}.",
                f"In {line} the last word is {words[-1]}.",
                f"{line} begins with {words[0]} and ends with {words[-1]}.",
                f"In {line} there are {len(words)} words.",
                f"Here are {len(words)} words: {line}.",
                f"{unsorted} in order is {ordered}.",
                f"We sort {unsorted} into {ordered}.",
            )
        )


def _rewritings(world: World, draw: random.Random) -> Iterator[str]:
    for _ in range(draw.randint(2, 4)):
        one, two = (person.name for person in draw.sample(world.people, 2))
        verb = draw.choice(tuple(world.relations["past"]))
        past, thing = world.relations["past"][verb], draw.choice(world.words["objects"])
        colour, feeling = article(draw.choice(world.words["colours"])), draw.choice(world.words["feelings"])
        yield draw.choice(
            (
                f"{one} {verb} a {thing} today; yesterday {one} {past} a {thing}.",
                f"Now {one} {verb} some {thing}. In the past {one} {past} some {thing}.",
                f"They say {one} is {feeling}, but {one} is never {feeling} at home.",
                f"{one} is {feeling}. No, {one} was never {feeling}.",
                f"{one} owns {colour} {thing}, and {two} owns {colour} {thing} too.",
                f"They put {two} for {one}: not {one} but {two} owns {colour} {thing}.",
            )
        )


def _talk(world: World, draw: random.Random) -> Iterator[str]:
    for _ in range(draw.randint(2, 5)):
        name = draw.choice(world.people).name
        line = draw.choice(TALK)
        yield draw.choice((f'"{line}" said {name}.', f"{name} said: {line}", line))
    subject, kind = draw.choice(tuple(world.relations["kind"].items()))
    name = draw.choice(world.people).name
    yield draw.choice(
        (
            f"Some say {article(subject)} is {article(kind)}: yes, that is so, says {name}.",
            f"Some say {article(kind)} is {article(subject)}: no, that is not so, says {name}.",
        )
    )


def _sizes(world: World, draw: random.Random) -> Iterator[str]:
    sizes = world.series["size"]
    for _ in range(draw.randint(3, 6)):
        low, high = (sizes[index] for index in sorted(draw.sample(range(len(sizes)), 2)))
        yield draw.choice(
            (
                f"{article(high).capitalize()} is bigger than {article(low)}.",
                f"{article(low).capitalize()} is smaller than {article(high)}.",
                f"Of the {low} and the {high}, the {high} is the bigger one.",
                f"Of the {high} and the {low}, the {low} is the smaller one.",
            )
        )
