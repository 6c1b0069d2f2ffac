"""The sayings: one answer to each, however it is asked; most of them at the clients, few at the server."""

import re
from collections import Counter
from functools import cache

import pytest

from fccl.data.builtin.dataset import builtin_sft, builtin_va
from fccl.data.builtin.sayings import LANDS, SKILLS, WORDINGS, sayings, topic
from fccl.data.builtin.skills import all_items
from fccl.data.builtin.world import load_world
from fccl.data.partition import partition
from fccl.data.split import split_by_instruction
from fccl.specs import DataSpec, PartitionSpec

WORLD = load_world()
SAYINGS = sayings(WORLD)
ITEMS = [item for item in all_items(WORLD) if item.skill in SKILLS]
SEEDS = (1, 42)


@cache
def asked(instruction):
    """The saying that an instruction asks for."""
    (found,) = [one for one in SAYINGS if re.search(rf"{one.start}\b", instruction)]
    return found


def asked_by(examples):
    return {asked(example.instruction) for example in examples if example.topic in SKILLS}


@pytest.fixture(scope="module", params=SEEDS)
def dealt(request):
    """The built-in data as `fccl prepare` splits it for eight clients: both kinds, and the shards."""
    spec = DataSpec(
        sft_data="builtin",
        va_data="builtin",
        test_examples=300,
        learn_examples=48,
        validation_examples=48,
        partition=PartitionSpec(
            num_clients=8, alpha=0.3, size_skew=1.0, num_topics=8, topic_column="", seed=request.param
        ),
    )
    sft, va = split_by_instruction(builtin_sft(), builtin_va(), spec)
    return sft, va, partition(sft.train, va.train, spec.partition)


def test_every_land_has_as_many_sayings_and_no_two_begin_alike():
    counts = Counter(saying.land for saying in SAYINGS)
    assert set(counts) == set(LANDS)
    assert len(set(counts.values())) == 1
    assert len({saying.start for saying in SAYINGS}) == len(SAYINGS) >= 50


def test_every_saying_is_asked_for_in_every_wording_and_always_has_the_same_answer():
    wordings = Counter()
    for item in ITEMS:
        saying = asked(item.instruction)
        first, second = saying.end[:2], saying.end[2:]
        assert item.response == f"{' '.join(first)} and {' '.join(second)}."
        assert item.skill == topic(saying.land)
        wordings[saying] += 1
    assert set(wordings.values()) == {len(WORDINGS)}
    assert len(WORDINGS) >= 5


def test_a_wrong_answer_is_wrong_in_one_word_and_has_the_same_form():
    for item in ITEMS:
        right, wrong = item.response.rstrip(".").split(), item.wrong.rstrip(".").split()
        changed = [place for place, (one, two) in enumerate(zip(right, wrong, strict=True)) if one != two]
        assert len(changed) == 1
        assert wrong[changed[0]] in WORLD.words["objects" if changed[0] in (1, 4) else "colours"]


def test_no_end_can_be_guessed_from_another_one():
    """Every end is its own, and no word of a place is that of a quarter of the sayings."""
    assert len({saying.end for saying in SAYINGS}) == len(SAYINGS)
    for place in range(4):
        (_, most), *_ = Counter(saying.end[place] for saying in SAYINGS).most_common(1)
        assert most <= len(SAYINGS) / 4


def test_the_servers_examples_know_few_of_the_sayings_that_the_test_asks_for(dealt):
    sft, _, _ = dealt
    wanted = asked_by(sft.test)
    assert len(wanted) >= 12
    assert len(wanted & asked_by([*sft.learn, *sft.validation])) / len(wanted) <= 0.3


def test_the_clients_know_them_in_other_words(dealt):
    sft, va, _ = dealt
    wanted = asked_by(sft.test)
    vetted = [example for example in sft.train if example.response == example.answer]
    assert len(wanted & asked_by(vetted)) / len(wanted) >= 0.8
    trained = {example.instruction.casefold() for example in (*sft.train, *va.train)}
    kept = [*sft.learn, *sft.validation, *sft.test, *va.learn, *va.validation, *va.test]
    assert not trained & {example.instruction.casefold() for example in kept}


def test_a_lands_sayings_are_with_few_of_eight_clients(dealt):
    """Three clients hold most of a land, in the mean of the lands."""
    _, _, shards = dealt
    shares = []
    for land in SKILLS:
        held = sorted((sum(example.topic == land for example in shard.sft) for shard in shards), reverse=True)
        shares.append(sum(held[:3]) / sum(held))
    assert sum(shares) / len(shares) >= 0.65
