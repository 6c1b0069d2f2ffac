"""The world, the skills, the pairs and the plain text: honest, distinct, and apart from each other."""

import hashlib
import re
from collections import Counter

import pytest

from fccl.data.builtin.corpus import documents
from fccl.data.builtin.dataset import builtin_sft, builtin_va
from fccl.data.builtin.flaws import FLAWS
from fccl.data.builtin.skills import SKILLS, all_items
from fccl.data.builtin.world import PERSON_ATTRIBUTES, load_world

WORLD = load_world()
ITEMS = all_items(WORLD)
TRAINED_ON = 60_000  # documents that scripts/train_micro.py reads by default


def test_at_least_twelve_skills_and_thousands_of_distinct_items():
    assert len(SKILLS) >= 12
    assert {item.skill for item in ITEMS} == set(SKILLS)
    assert len(ITEMS) == len({item.instruction for item in ITEMS}) > 4000


def test_a_wrong_response_is_wrong():
    assert [item for item in ITEMS if item.wrong == item.response] == []


def test_arithmetic_and_lists_are_right():
    for item in ITEMS:
        numbers = [int(n) for n in re.findall(r"\d+", item.instruction)]
        if item.skill in ("addition", "subtraction"):
            result = numbers[0] + numbers[1] if item.skill == "addition" else numbers[0] - numbers[1]
            assert item.response == f"It is {result}."
        elif item.skill == "sorting":
            assert [int(n) for n in item.response.split()] == sorted(numbers)
        elif item.skill in ("copying", "reversing"):
            words = item.instruction.split(": ")[1].split()
            assert item.response.split() == (words if item.skill == "copying" else words[::-1])


def test_people_are_asked_about_what_is_true_of_them():
    people = {person.name: person for person in WORLD.people}
    for item in ITEMS:
        if item.skill == "people":
            person = people[item.response.split("'")[0]]
            assert any(getattr(person, attribute) in item.response for attribute in PERSON_ATTRIBUTES)


def test_every_process_sees_the_same_data():
    assert builtin_sft() == builtin_sft()
    assert builtin_va() == builtin_va()


def test_instructions_of_sft_and_va_are_apart():
    sft, va = builtin_sft(), builtin_va()
    assert not {example.instruction for example in sft} & {pair.instruction for pair in va}
    assert len(sft) + len(va) == len(ITEMS)


def test_at_least_five_flaws_equally_often():
    counts = Counter(pair.flaw for pair in builtin_va())
    assert len(counts) == len(FLAWS) >= 5
    assert max(counts.values()) - min(counts.values()) <= 1
    assert all(pair.preferred != pair.dispreferred for pair in builtin_va())


def test_the_plain_text_is_still_what_the_built_in_model_was_trained_on():
    """Recorded from the version that `scripts/train_micro.py` made the model with."""
    text = "\n".join(documents(WORLD, 300))
    assert hashlib.sha256(text.encode()).hexdigest().startswith("ae780ace2a9956eb")


@pytest.fixture(scope="module", params=["a quarter", pytest.param("all", marks=pytest.mark.slow)])
def sentences(request):
    """Every sentence of the text that the built-in model was trained on, without its closing mark, in lower case; or
    of its first quarter, which takes a quarter of the seconds.
    """
    found = set()
    for document in documents(WORLD, TRAINED_ON if request.param == "all" else TRAINED_ON // 4):
        found |= {sentence.strip(' ."').lower() for sentence in re.split(r'(?<=[.!?;])\s+|(?<=[.!?;]")\s*', document)}
    return found


def test_the_plain_text_has_no_instruction_and_no_response(sentences):
    assert len(sentences) > 10_000
    assert [item for item in ITEMS if item.response.strip(" .").lower() in sentences] == []
    assert [item for item in ITEMS if item.instruction.strip(" .").lower() in sentences] == []


def test_the_plain_text_has_nothing_of_the_prompt(sentences):
    assert not [
        sentence
        for sentence in sentences
        if "instruction" in sentence or "response" in sentence or "#" in sentence or "?" in sentence
    ]


@pytest.mark.parametrize("person", WORLD.people[::20], ids=lambda person: person.name)
def test_the_plain_text_tells_every_fact_of_a_person(sentences, person):
    about = " ".join(sentence for sentence in sentences if person.name.lower() in sentence)
    for attribute in PERSON_ATTRIBUTES:
        assert getattr(person, attribute).lower() in about
