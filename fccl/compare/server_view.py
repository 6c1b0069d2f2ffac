"""The server's learning examples as a scenario leaves them: fewer topics, fewer examples, wrong answers, another
source; and a topic that one client alone holds.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fccl.compare.values import WHOLE, ServerView, TrialSpec
from fccl.data.builtin.corpus import documents
from fccl.data.builtin.world import load_world
from fccl.data.examples import Example, PreferencePair, SftExample
from fccl.data.noise import deranged
from fccl.data.shards import ClientShard
from fccl.evaluation.validation import Validator
from fccl.specs import named_seed

ANSWERS: Mapping[type, tuple[str, ...]] = {SftExample: ("response",), PreferencePair: ("preferred", "dispreferred")}
SHORTEST = 4  # words of a sentence that is halved


def seen(examples: Sequence[Example], view: ServerView, seed: int, unknown: str = "") -> tuple[Example, ...]:
    """The examples that the server has of these; of `unknown`, a topic, it has none.

    Drawn from the seed: of the topics that it knows those with the most examples of a random order, then the examples,
    then which of them are wrong.
    """
    draw = random.Random(named_seed(seed, "server view"))
    found = [example for example in examples if not unknown or example.topic != unknown]
    if view.topics:
        topics = sorted({example.topic for example in found})
        kept = set(draw.sample(topics, min(view.topics, len(topics))))
        found = [example for example in found if example.topic in kept]
    if view.examples:
        found = [found[place] for place in sorted(draw.sample(range(len(found)), min(view.examples, len(found))))]
    return tuple(_mislabelled(found, view.mislabelled, draw))


def seen_instructions(
    examples: Sequence[SftExample], view: ServerView, seed: int, unknown: str
) -> tuple[SftExample, ...]:
    """`seen` of instructions, which may be from elsewhere."""
    return seen(from_elsewhere(len(examples), seed) if view.elsewhere else examples, view, seed, unknown)


def from_elsewhere(count: int, seed: int) -> tuple[SftExample, ...]:
    """At most so many halves of plain sentences to be completed: no questions, and text that no client has."""
    found = []
    for text in documents(load_world(), 4 * count, f"elsewhere {seed}"):
        words = text.split(". ")[0].rstrip(".").split()
        if len(words) >= SHORTEST:
            half = len(words) // 2
            found.append(SftExample(" ".join(words[:half]), " ".join(words[half:]) + "."))
    return tuple(dict.fromkeys(found))[:count]


def _mislabelled(examples: list[Example], share: float, draw: random.Random) -> list[Example]:
    """That share of the examples has the answers of each other, at least two of them."""
    count = round(share * len(examples))
    if count < 2:
        return examples
    places = sorted(draw.sample(range(len(examples)), count))
    answers = deranged([_answer(examples[place]) for place in places], draw)
    found = list(examples)
    for place, answer in zip(places, answers, strict=True):
        found[place] = _with_answer(found[place], answer)
    return found


def _answer(example: SftExample | PreferencePair) -> tuple[str, ...]:
    return tuple(getattr(example, name) for name in ANSWERS[type(example)])


def _with_answer(example: Example, answer: tuple[str, ...]) -> Example:
    changes: dict[str, Any] = dict(zip(ANSWERS[type(example)], answer, strict=True))
    return replace(example, **changes)


def known_to_server(learn: Validator, spec: TrialSpec) -> Validator:
    """The learn split as far as the server has it in this trial."""
    view, seed, unknown = spec.server, spec.plan.seed, spec.specialist
    if view == WHOLE and not unknown:
        return learn
    sft, va = seen_instructions(learn.sft, view, seed, unknown), seen(learn.va, view, seed, unknown)
    return Validator(learn.model, sft, va, preference=learn.preference, batch_size=learn.batch_size)


def specialised(shards: Sequence[ClientShard], topic: str) -> tuple[ClientShard, ...]:
    """The same examples, those of `topic` all at the first client. Who held nothing else keeps one of them."""
    first, *others = shards
    rest = [_without(shard, topic) for shard in others]
    gained = [_only(shard, topic) for shard in others]
    sft = tuple(one for shard in gained for one in shard.sft)
    va = tuple(one for shard in gained for one in shard.va)
    return (replace(first, sft=first.sft + sft, va=first.va + va), *rest)


def _only(shard: ClientShard, topic: str) -> ClientShard:
    sft = tuple(one for one in shard.sft if one.topic == topic)
    return replace(shard, sft=sft, va=tuple(one for one in shard.va if one.topic == topic))


def _without(shard: ClientShard, topic: str) -> ClientShard:
    sft = tuple(one for one in shard.sft if one.topic != topic) or shard.sft[:1]
    va = tuple(one for one in shard.va if one.topic != topic) or shard.va[:1]
    return replace(shard, sft=sft, va=va)
