"""Topics: labels are kept, free text is clustered, both kinds share the clusters."""

import random

import pytest

from fccl.data.examples import PreferencePair, SftExample
from fccl.data.split import Split
from fccl.data.topics import UNNAMED, text_topics, with_topics

WORDS = {
    "cooking": "bake bread oven flour butter recipe sugar dough",
    "space": "planet orbit rocket star galaxy moon telescope comet",
    "law": "court judge contract lawyer verdict appeal statute trial",
}


def texts(subject, count, seed=0):
    draw = random.Random(f"{subject}{seed}")
    return [" ".join(draw.sample(WORDS[subject].split(), 5)) for _ in range(count)]


def test_separate_subjects_become_separate_topics_with_telling_names():
    everything = [text for subject in WORDS for text in texts(subject, 30)]
    names = text_topics(everything, everything, 3, seed=1)
    for index, subject in enumerate(WORDS):
        mine = set(names[30 * index : 30 * index + 30])
        assert len(mine) == 1
        assert set(mine.pop().split(", ")) <= set(WORDS[subject].split())
    assert len(set(names)) == 3


def test_unseen_texts_get_the_topic_of_their_subject():
    seen = [text for subject in WORDS for text in texts(subject, 30)]
    names = text_topics(seen, [*texts("law", 1), *texts("law", 5, seed=9)], 3, seed=1)
    assert len(set(names)) == 1


def test_the_same_seed_gives_the_same_topics():
    everything = [text for subject in WORDS for text in texts(subject, 20)]
    assert text_topics(everything, everything, 5, seed=3) == text_topics(everything, everything, 5, seed=3)


@pytest.mark.parametrize(
    "instructions", [["one apple"], ["one apple", "two pears"], ["one apple"] * 5, ["apples", "apples", "pears"]]
)
def test_fewer_texts_than_clusters(instructions):
    names = text_topics(instructions, instructions, 8, seed=0)
    assert len(set(names)) <= len(set(instructions))
    assert all(names)


@pytest.mark.parametrize("instructions", [["?!", "..."], ["is it of the", "and"], [""]])
def test_texts_without_words(instructions):
    assert text_topics(instructions, instructions, 4, seed=0) == [UNNAMED] * len(instructions)


def test_both_kinds_share_their_topics_and_examples_of_every_split_have_one():
    sft = Split(
        tuple(SftExample(text, "A") for subject in WORDS for text in texts(subject, 20)),
        learn=(SftExample("oven flour", "A"),),
        validation=(SftExample("bake bread", "A"),),
        test=(SftExample("rocket star", "A"),),
    )
    va = Split(
        tuple(PreferencePair(text, "A", "B") for text in texts("law", 20, seed=5)),
        validation=(PreferencePair("judge court", "A", "B"),),
    )
    labelled_sft, labelled_va = with_topics(sft, va, 3, seed=0)
    law = {example.topic for example in labelled_sft.train[40:]}
    assert law == {pair.topic for pair in (*labelled_va.train, *labelled_va.validation)}
    assert labelled_sft.validation[0].topic == labelled_sft.train[0].topic
    assert labelled_sft.learn[0].topic == labelled_sft.train[0].topic
    assert labelled_sft.test[0].topic == labelled_sft.train[20].topic


def test_labels_are_kept_and_only_the_rest_is_clustered():
    sft = Split(tuple(SftExample(text, "A", topic="mine") for text in texts("law", 4)))
    va = Split(tuple(PreferencePair(text, "A", "B") for text in texts("space", 4)))
    labelled_sft, labelled_va = with_topics(sft, va, 1, seed=0)
    assert labelled_sft == sft
    assert {pair.topic for pair in labelled_va.train} != {"mine"}
    assert with_topics(sft, Split(), 3, seed=0) == (sft, Split())
