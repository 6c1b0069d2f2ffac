"""The instructions of the built-in data: one small generator a skill.

Facts are asked about things that the built-in model has read plain sentences of, and about sayings, which it has never
read of. The other skills (lists, numbers, rewriting) have their answer in the instruction. Every item has its own
instruction, so a split by instruction is a split by item.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import pairwise

from fccl.data.builtin import sayings
from fccl.data.builtin.item import Item, Skill, other
from fccl.data.builtin.world import World, article

LIST_ITEMS = 400  # items of each skill whose instructions could be drawn without end


def _relation(skill: str, relation: str, question: str, answer: str) -> Skill:
    """A skill that asks for the value of a relation. `{s}` is the subject, `{as}` the subject with its article."""

    def items(world: World, draw: random.Random) -> Iterator[Item]:
        values = world.values(relation)
        for subject, value in world.relations[relation].items():
            wrong = other(draw, values, value, subject)
            words = {"s": subject, "as": article(subject)}
            yield Item(
                skill,
                question.format(**words),
                answer.format(v=value, av=article(value), **words),
                answer.format(v=wrong, av=article(wrong), **words),
            )

    return items


def _people(world: World, draw: random.Random) -> Iterator[Item]:
    forms = {
        "job": ("What is {n}'s job?", "{n}'s job is {v}."),
        "town": ("Where does {n} live?", "{n}'s home is {v}."),
    }
    for person in world.people:
        for attribute, (question, answer) in forms.items():
            value = getattr(person, attribute)
            wrong = other(draw, world.values(attribute), value)
            right, false = (answer.format(n=person.name, v=v, av=article(v)) for v in (value, wrong))
            yield Item("people", question.format(n=person.name), right, false)


def _towns(world: World, draw: random.Random) -> Iterator[Item]:
    for table, question, answer in (
        (world.land_of, "In which land is {s}?", "{s} belongs to {v}."),
        (world.river_of, "Which river runs through {s}?", "The river there is the {v}."),
    ):
        values = sorted(set(table.values()))
        for town, value in table.items():
            wrong = other(draw, values, value)
            yield Item("towns", question.format(s=town), answer.format(s=town, v=value), answer.format(s=town, v=wrong))


def _animals(world: World, draw: random.Random) -> Iterator[Item]:
    for relation, question, answer in (
        ("sound", "What sound does {as} make?", "It {v}."),
        ("home", "What is the home of {as}?", "Its home is the {v}."),
        ("young", "What is a young {s} called?", "It is called {av}."),
    ):
        yield from _relation("animals", relation, question, answer)(world, draw)


def _next_and_before(world: World, draw: random.Random) -> Iterator[Item]:
    for name, series in world.series.items():
        if name == "size":
            continue
        for before, after in pairwise(series):
            yield Item(
                "order",
                f"What comes after {before}?",
                f"After {before} comes {after}.",
                f"After {before} comes {other(draw, series, after, before)}.",
            )
            yield Item(
                "order",
                f"What comes before {after}?",
                f"Before {after} comes {before}.",
                f"Before {after} comes {other(draw, series, after, before)}.",
            )


def _addition(world: World, draw: random.Random) -> Iterator[Item]:
    for a in range(1, 16):
        for b in range(1, 16):
            yield Item("addition", f"What is {a} plus {b}?", f"It is {a + b}.", f"It is {_near(draw, a + b)}.")


def _subtraction(world: World, draw: random.Random) -> Iterator[Item]:
    for a in range(2, 21):
        for b in range(1, a):
            yield Item("subtraction", f"What is {a} minus {b}?", f"It is {a - b}.", f"It is {_near(draw, a - b)}.")


def _near(draw: random.Random, number: int) -> int:
    """A wrong number not far from the right one."""
    return max(0, number + draw.choice((-3, -2, -1, 1, 2, 3))) if number > 0 else number + draw.choice((1, 2, 3))


def _comparison(world: World, draw: random.Random) -> Iterator[Item]:
    sizes = world.series["size"]
    for small in range(len(sizes)):
        for large in range(small + 1, len(sizes)):
            pair = [sizes[small], sizes[large]]
            word, right = draw.choice((("bigger", sizes[large]), ("smaller", sizes[small])))
            draw.shuffle(pair)
            false = pair[0] if right == pair[1] else pair[1]
            yield Item(
                "comparison",
                f"Which is {word}, the {pair[0]} or the {pair[1]}?",
                f"The {right} is {word}.",
                f"The {false} is {word}.",
            )


def _lists(world: World, draw: random.Random, shortest: int, longest: int) -> Iterator[list[str]]:
    """Distinct lists of distinct words, `LIST_ITEMS` of them."""
    seen: set[tuple[str, ...]] = set()
    while len(seen) < LIST_ITEMS:
        words = draw.sample(world.words["objects"], draw.randint(shortest, longest))
        if tuple(words) not in seen:
            seen.add(tuple(words))
            yield words


def _swapped(draw: random.Random, words: Sequence[str]) -> list[str]:
    """The same words with two of them exchanged."""
    i, j = draw.sample(range(len(words)), 2)
    changed = list(words)
    changed[i], changed[j] = changed[j], changed[i]
    return changed


def _copying(world: World, draw: random.Random) -> Iterator[Item]:
    for words in _lists(world, draw, 2, 5):
        yield Item(
            "copying", f"Repeat these words: {' '.join(words)}", " ".join(words), " ".join(_swapped(draw, words))
        )


def _reversing(world: World, draw: random.Random) -> Iterator[Item]:
    for words in _lists(world, draw, 2, 3):
        backwards = words[::-1]
        yield Item(
            "reversing",
            f"Say these words backwards: {' '.join(words)}",
            " ".join(backwards),
            " ".join(_swapped(draw, backwards)),
        )


def _picking(world: World, draw: random.Random) -> Iterator[Item]:
    for words in _lists(world, draw, 3, 5):
        which, index = draw.choice((("first", 0), ("last", -1)))
        wrong = other(draw, words, words[index])
        yield Item(
            "picking",
            f"Which word is {which}: {' '.join(words)}",
            f"The {which} word is {words[index]}.",
            f"The {which} word is {wrong}.",
        )


def _counting(world: World, draw: random.Random) -> Iterator[Item]:
    for words in _lists(world, draw, 2, 6):
        n = len(words)
        yield Item(
            "counting",
            f"How many words are here: {' '.join(words)}",
            f"There are {n} words.",
            f"There are {_near(draw, n)} words.",
        )


def _sorting(world: World, draw: random.Random) -> Iterator[Item]:
    seen: set[tuple[int, ...]] = set()
    while len(seen) < LIST_ITEMS:
        numbers = tuple(draw.sample(range(1, 20), 3))
        if numbers in seen:
            continue
        seen.add(numbers)
        ordered = [str(n) for n in sorted(numbers)]
        yield Item(
            "sorting",
            f"Sort these numbers: {' '.join(map(str, numbers))}",
            " ".join(ordered),
            " ".join(_swapped(draw, ordered)),
        )


def _past_tense(world: World, draw: random.Random) -> Iterator[Item]:
    for name, verb, thing in _sentences(world, draw):
        past = world.relations["past"][verb]
        wrong = other(draw, world.values("past"), past)
        yield Item(
            "past tense",
            f"Put this in the past: {name} {verb} the {thing}.",
            f"{name} {past} the {thing}.",
            f"{name} {wrong} the {thing}.",
        )


def _sentences(world: World, draw: random.Random) -> Iterator[tuple[str, str, str]]:
    """Distinct (name, verb, thing), `LIST_ITEMS` of them."""
    names, verbs, things = [p.name for p in world.people], list(world.relations["past"]), world.words["objects"]
    seen: set[tuple[str, str, str]] = set()
    while len(seen) < LIST_ITEMS:
        sentence = (draw.choice(names), draw.choice(verbs), draw.choice(things))
        if sentence not in seen:
            seen.add(sentence)
            yield sentence


def _negation(world: World, draw: random.Random) -> Iterator[Item]:
    pairs = [(p.name, feeling) for p in world.people for feeling in world.words["feelings"]]
    for name, feeling in draw.sample(pairs, LIST_ITEMS):
        wrong = other(draw, world.words["feelings"], feeling)
        yield Item(
            "negation",
            f"Put never into this: {name} is {feeling}.",
            f"{name} is never {feeling}.",
            f"{name} is never {wrong}.",
        )


def _replacing(world: World, draw: random.Random) -> Iterator[Item]:
    names = [p.name for p in world.people]
    for name, _, thing in _sentences(world, draw):
        colour, new = draw.choice(world.words["colours"]), other(draw, names, name)
        yield Item(
            "replacing",
            f"Put {new} for {name}: {name} owns {article(colour)} {thing}.",
            f"{new} owns {article(colour)} {thing}.",
            f"{name} owns {article(colour)} {thing}.",
        )


def _yes_or_no(world: World, draw: random.Random) -> Iterator[Item]:
    kinds = world.values("kind")
    for subject, kind in world.relations["kind"].items():
        for claim, yes in ((kind, True), (other(draw, kinds, kind), False)):
            answers = ("Yes, that is so.", "No, that is not so.")
            yield Item("yes or no", f"Is {article(subject)} {article(claim)}?", answers[not yes], answers[yes])


SKILLS: dict[str, Skill] = {
    "opposites": _relation("opposites", "opposite", "What is the opposite of {s}?", "The opposite is {v}."),
    "colours": _relation("colours", "colour", "What colour is {s}?", "It is {v}."),
    "categories": _relation("categories", "kind", "What is {as}?", "It is {av}."),
    "uses": _relation("uses", "use", "What is {as} for?", "It is for {v}."),
    "plurals": _relation("plurals", "plural", "What is the plural of {s}?", "The plural is {v}."),
    "people": _people,
    "towns": _towns,
    "animals": _animals,
    "order": _next_and_before,
    "addition": _addition,
    "subtraction": _subtraction,
    "comparison": _comparison,
    "copying": _copying,
    "reversing": _reversing,
    "picking": _picking,
    "counting": _counting,
    "sorting": _sorting,
    "past tense": _past_tense,
    "negation": _negation,
    "replacing": _replacing,
    "yes or no": _yes_or_no,
    **sayings.SKILLS,
}


def all_items(world: World, seed: str = "fccl-items") -> list[Item]:
    """Every item of every skill, in the order of the skills. Instructions are distinct."""
    return [item for name, skill in SKILLS.items() for item in skill(world, random.Random(f"{seed}/{name}"))]
