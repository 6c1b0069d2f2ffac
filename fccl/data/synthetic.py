"""Preference pairs made from instructions with one response: the response, against a spoilt one made from text alone.

Where an example has an `answer` beside its response, the answer is the preferred one: the response may be a
demonstration that nobody has vetted.

For users who have no preference data. What such pairs teach is narrow (answer what was asked, whole, in order, once),
so the manifest calls them synthetic.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise

from fccl.data.examples import PreferencePair, SftExample
from fccl.data.split import Split
from fccl.specs import named_seed

REFUSALS = (
    "I would rather not answer that.",
    "I am sorry, but I cannot help with this.",
    "That is hard to say. It depends.",
    "You should ask somebody else about it.",
)
_SENTENCE_END = re.compile(r"((?<=[.!?])\s+|\n+)")

Flaw = Callable[
    [str, random.Random], str
]  # a response and a draw -> a worse response, "" when this flaw cannot be made of it


def synthetic_pairs(sft: Split[SftExample], max_examples: int, seed: int) -> Split[PreferencePair]:
    """A pair for each example, each split from its own examples only.

    With a maximum every split is sampled down alike, to one example, and all of them together to the maximum. A split
    that would be empty keeps one.
    """
    ends = [0, *accumulate(len(part) for part in sft.parts().values())]
    share = min(1.0, max_examples / ends[-1]) if max_examples else 1.0
    counts = [max(1, round(end * share) - round(start * share)) for start, end in pairwise(ends)]
    parts = zip(sft.parts().items(), counts, strict=True)
    return Split(*(make_pairs(_sample(part, count, seed, name), seed) for (name, part), count in parts))


def _sample(examples: Sequence[SftExample], count: int, seed: int, name: str) -> Sequence[SftExample]:
    if count >= len(examples):
        return examples
    kept = random.Random(named_seed(seed, "synthetic-sample", name)).sample(range(len(examples)), count)
    return [examples[index] for index in sorted(kept)]


def make_pairs(examples: Sequence[SftExample], seed: int) -> tuple[PreferencePair, ...]:
    """One pair for each example: its answer or response preferred, and dispreferred the same with one flaw, drawn among
    those it can have.
    """
    responses = sorted({_good(example) for example in examples})
    return tuple(_pair(example, responses, seed) for example in examples)


def _pair(example: SftExample, responses: Sequence[str], seed: int) -> PreferencePair:
    draw = random.Random(named_seed(seed, "synthetic", example.instruction, example.response))
    flaws: Mapping[str, Flaw] = {"off-topic": lambda response, draw: _other(responses, draw), **FLAWS}
    names = list(flaws)
    draw.shuffle(names)
    good = _good(example)
    made = ((name, flaws[name](good, draw)) for name in names)
    flaw, worse = next((name, text) for name, text in made if text and text != good)  # evasion is always possible
    own = {"topic": example.topic, "client": example.client}
    return PreferencePair(example.instruction, good, worse, flaw=flaw, asked=example.asked, **own)


def _good(example: SftExample) -> str:
    return example.answer or example.response


def _other(responses: Sequence[str], draw: random.Random) -> str:
    return draw.choice(responses)


def _truncated(response: str, draw: random.Random) -> str:
    """Cut between words, somewhere in the middle."""
    words = response.split(" ")
    return (
        " ".join(words[: draw.randint(len(words) // 4 + 1, len(words) * 3 // 4)]).rstrip(" .!?\n")
        if len(words) >= 4
        else ""
    )


def _scrambled(response: str, draw: random.Random) -> str:
    """The sentences and lines in another order; what stands between them stays, so that the layout gives
    nothing away."""
    parts = _SENTENCE_END.split(response)  # sentence, separator, sentence, …
    sentences = parts[::2]
    if len(set(sentences)) < 2:
        return ""
    shuffled = draw.sample(sentences, len(sentences))
    if shuffled == sentences:
        shuffled = sentences[1:] + sentences[:1]
    return "".join(text for pair in zip(shuffled, [*parts[1::2], ""], strict=True) for text in pair)


def _evasive(response: str, draw: random.Random) -> str:
    return draw.choice([refusal for refusal in REFUSALS if refusal != response])


def _repeated(response: str, draw: random.Random) -> str:
    """The first sentence again and again."""
    return " ".join([_SENTENCE_END.split(response)[0]] * draw.randint(3, 4))


FLAWS: Mapping[str, Flaw] = {
    "truncated": _truncated,
    "scrambled": _scrambled,
    "evasive": _evasive,
    "repeated": _repeated,
}
