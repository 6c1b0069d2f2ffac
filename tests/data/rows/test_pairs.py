"""Preferences whose prompt stands in both texts or in a column of its own, and rated answers of which some are of no
use.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.data.formats import parse_va
from fccl.errors import BadRow, DataError


def va(*rows, **more):
    return parse_va(enumerate(rows, 1), "rows", **more)


def triple(row):
    (pair,) = va(row).examples
    return pair.instruction, pair.preferred, pair.dispreferred


def spoken(*turns):
    """A conversation as HH-RLHF writes it, the human first."""
    return "".join(f"\n\n{('Human', 'Assistant')[index % 2]}: {said}" for index, said in enumerate(turns))


SAID = st.text(st.characters(codec="utf-8", exclude_characters=":"), min_size=1).filter(
    lambda text: text.strip() == text and "\n\n" not in text
)


@given(st.lists(st.tuples(SAID, SAID), max_size=3), SAID, SAID, SAID)
def test_the_common_beginning_is_the_prompt(earlier, question, good, bad):
    before = [said for exchange in earlier for said in exchange]
    parsed = va(
        {"chosen": spoken(*before, question, good), "rejected": spoken(*before, question, bad)},
        {"prompt": "P", "chosen": "1", "rejected": "2"},
    )
    if good == bad:
        assert parsed.nothing_to_learn == 1
        return
    pair = parsed.examples[0]
    labels = [f"{('User', 'Assistant')[index % 2]}: {said}" for index, said in enumerate([*before, question])]
    assert pair.instruction == ("\n\n".join(labels) if before else question)
    assert (pair.preferred, pair.dispreferred) == (good, bad)


SPOKEN = [
    (spoken("Q", "A"), spoken("Q", "B"), ("Q", "A", "B")),
    (spoken("Q", "A").strip(), spoken("Q", "B").strip(), ("Q", "A", "B")),
    ("\n\nHuman: Q\n\nAssistant:A", "\n\nHuman: Q\n\nAssistant:B", ("Q", "A", "B")),
    (spoken("Q", "It is so."), spoken("Q", "It is not so."), ("Q", "It is so.", "It is not so.")),
    (spoken("Q", "A\n\nAnd more."), spoken("Q", "B"), ("Q", "A\n\nAnd more.", "B")),
    (spoken("P", "R", "Q", "A"), spoken("P", "R", "Q", "B"), ("User: P\n\nAssistant: R\n\nUser: Q", "A", "B")),
    ("User: Q\n\nAssistant: A", "User: Q\n\nAssistant: B", ("Q", "A", "B")),
]


@pytest.mark.parametrize(("chosen", "rejected", "expected"), SPOKEN)
def test_two_texts_that_hold_their_prompt(chosen, rejected, expected):
    assert triple({"chosen": chosen, "rejected": rejected}) == expected
    prompt = chosen[: chosen.rfind("Assistant:") + len("Assistant:")]
    assert triple({"prompt": prompt, "chosen": chosen, "rejected": rejected}) == expected
    only_answers = {"prompt": prompt, "chosen": expected[1], "rejected": expected[2]}
    assert triple(only_answers) == expected


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        (spoken("Q", "A"), spoken("Q", "A")),
        (spoken("Q", "A"), spoken("Q", "")),
        (spoken("Q", "A", "P", "R"), spoken("Q", "B", "P", "R")),  # they differ in more than an answer
        (spoken("Q", "A"), spoken("Q", "B", "P")),
        (spoken("Q", "A", "P", "R"), spoken("Q", "B")),
    ],
)
def test_two_texts_that_are_no_pair(chosen, rejected):
    parsed = va({"chosen": chosen, "rejected": rejected}, {"prompt": "Q", "chosen": "A", "rejected": "B"})
    assert (parsed.nothing_to_learn, len(parsed.examples)) == (1, 1)


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [("A", "B"), (spoken("Q", "A"), spoken("P", "B")), ("Human: Q", "Human: P"), ("", "B"), ("Q\n\nAssistant: A",) * 2],
)
def test_two_texts_without_a_prompt_say_what_is_missing(chosen, rejected):
    with pytest.raises(
        BadRow, match="has no prompt: none of prompt, conversations, instruction, question, input, and no turns before"
    ):
        va({"chosen": chosen, "rejected": rejected})


@pytest.mark.parametrize("column", ["prompt", "instruction", "question", "input", "conversations"])
@pytest.mark.parametrize("empty", [None, float("nan"), ""])
def test_the_prompt_has_many_names(column, empty):
    row = {column: "Q", "chosen": "A", "rejected": "B"}
    assert triple(row) == ("Q", "A", "B")
    assert va(row).columns_not_used == []
    assert triple({"prompt": empty} | row) == ("Q", "A", "B")


@pytest.mark.parametrize("column", ["instruction", "question"])
def test_an_input_belongs_to_its_instruction(column):
    assert triple({column: "Q", "input": "more", "chosen": "A", "rejected": "B"}) == ("Q\n\nmore", "A", "B")
    assert (
        triple(
            {
                column: "Q",
                "input": float("nan"),
                "context": "more",
                "chosen": [{"role": "assistant", "content": "A"}],
                "rejected": "B",
            }
        )[0]
        == "Q\n\nmore"
    )


def test_a_prompt_that_a_plain_answer_repeats_stays_in_the_answer():
    assert triple({"prompt": "Hi", "chosen": "Hi there", "rejected": "Hi!"}) == ("Hi", "Hi there", "Hi!")


# Rated answers
# ---------------------------------------------------------------------------------------------------------


def rated(*answers):
    keys = ("response", "overall_score", "fine-grained_score")
    return {
        "instruction": "Q",
        "completions": [
            answer if not isinstance(answer, tuple) else dict(zip(keys, answer, strict=False)) for answer in answers
        ],
    }


USELESS = [
    (None, 3.0),
    ("", 3.0),
    (" \n", 10),
    (float("nan"), 3.0),
    (7, 3.0),
    (["C"], 3.0),
    ("C", None),
    ("C", "N/A"),
    ("C", "nan"),
    ("C", float("nan")),
    ("C", float("inf")),
    ("C", "good"),
    ("C", True),
    None,
    {"response": "C"},
    {"overall_score": 9},
]


@pytest.mark.parametrize("answer", USELESS)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_answer_of_no_use_is_passed_over_and_counted(answer, place):
    answers = [("A", 8.5, 4.5), ("B", 2.0, 2.0)]
    answers.insert(place, answer)
    parsed = va(rated(*answers), rated(*answers))
    assert [(pair.preferred, pair.dispreferred) for pair in parsed.examples] == [("A", "B")] * 2
    assert parsed.answers == {"answers_passed_over": 2}


@pytest.mark.parametrize("answer", USELESS[:13])
def test_a_row_with_too_few_answers_left_is_no_pair_and_no_fault(answer):
    parsed = va(rated(answer, ("A", 5)), rated(answer), rated(("A", 5), ("B", 3)))
    assert (parsed.nothing_to_learn, parsed.bad_rows, len(parsed.examples), parsed.answers["answers_passed_over"]) == (
        2,
        0,
        1,
        2,
    )


@pytest.mark.parametrize(("score", "fine"), [(10, 1.25), (10.0, 2.0), ("10", "1.5"), (10, 1), (10.0, 0)])
def test_a_ten_that_its_own_fine_grained_score_contradicts_is_left_out_and_counted(score, fine):
    parsed = va(rated(("bad", score, fine), ("A", 8.5, 4.5), ("B", 2.0, 2.0)))
    assert [(pair.preferred, pair.dispreferred) for pair in parsed.examples] == [("A", "B")]
    assert parsed.answers == {"false_tens": 1}


@pytest.mark.parametrize(
    ("score", "fine"), [(10, 4.75), (10, 2.25), (10, None), (10, "N/A"), (10, float("nan")), (9.5, 1.25)]
)
def test_any_other_rating_is_believed(score, fine):
    parsed = va(rated(("best", score, fine), ("A", 8.5, 4.5), ("B", 2.0, 2.0)))
    assert [(pair.preferred, pair.dispreferred) for pair in parsed.examples] == [("best", "B")]
    assert not parsed.answers


def test_an_error_counts_what_was_left_out():
    with pytest.raises(
        DataError, match="2 with nothing to learn, 1 answers without a text or a rating, 2 answers falsely rated 10"
    ) as caught:
        va(rated(("bad", 10, 1.25), ("A", 8.5)), rated(("bad", 10, 1), (None, 3), ("A", 2)))
    assert "every row was left out" in caught.value.hint


def test_answers_of_a_row_that_is_left_out_itself_are_not_counted():
    parsed = va(
        rated(("A", 3), ("B", 2)),
        rated((None, 1)) | {"instruction": ""},
        rated((None, 1)) | {"train": False},
        skip_bad_rows=True,
    )
    assert (parsed.bad_rows, parsed.marked, parsed.answers) == (1, 1, {})
