"""Synthetic pairs: the response against a visibly worse one, from its own split."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.data.examples import SftExample
from fccl.data.split import Split
from fccl.data.synthetic import REFUSALS, make_pairs, synthetic_pairs

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
LONG = [
    SftExample(f"Question {n}?", f"The first {n} thing. Then the second {n} thing!\n\n- third {n}\n- fourth {n}", "t")
    for n in NUMBERS * 5
]
LONG = [
    SftExample(f"{index} {example.instruction}", f"{example.response} ({index})", "t")
    for index, example in enumerate(LONG)
]


@given(
    st.lists(
        st.builds(
            SftExample, st.text(min_size=1), st.text(min_size=1) | st.sampled_from(REFUSALS), st.sampled_from("ab")
        ),
        max_size=8,
    ),
    st.integers(0, 99),
)
def test_whatever_the_responses_a_pair_is_made_of_each(examples, seed):
    pairs = make_pairs(examples, seed)
    assert [(pair.instruction, pair.preferred, pair.topic) for pair in pairs] == [
        (example.instruction, example.response, example.topic) for example in examples
    ]
    assert all(pair.dispreferred and pair.dispreferred != pair.preferred and pair.flaw for pair in pairs)
    assert make_pairs(examples, seed) == pairs


def test_each_flaw_is_what_it_is_called():
    pairs = [pair for seed in range(8) for pair in make_pairs(LONG, seed)]
    counts = Counter(pair.flaw for pair in pairs)
    assert set(counts) == {"off-topic", "truncated", "scrambled", "evasive", "repeated"}
    assert min(counts.values()) > 0.15 * len(pairs)
    responses = {example.response for example in LONG}
    for pair in pairs:
        match pair.flaw:
            case "off-topic":
                assert pair.dispreferred in responses
            case "truncated":
                assert pair.preferred.startswith(pair.dispreferred)
                assert not pair.dispreferred.endswith((".", "!"))
            case "scrambled":
                assert Counter(pair.dispreferred) == Counter(pair.preferred)
            case "evasive":
                assert pair.dispreferred in REFUSALS
            case "repeated":
                assert pair.dispreferred.count("The first") in (3, 4)


@pytest.mark.parametrize("maximum", [0, 10, 40, 1000])
def test_each_split_from_its_own_examples(maximum):
    split = Split(tuple(LONG[:28]), tuple(LONG[28:32]), tuple(LONG[32:36]), tuple(LONG[36:]))
    made = synthetic_pairs(split, maximum, seed=3)
    for name, part in split.parts().items():
        mine = {example.response for example in part}
        pairs = made.parts()[name]
        assert {pair.preferred for pair in pairs} <= mine
        assert {pair.dispreferred for pair in pairs if pair.flaw == "off-topic"} <= mine
        assert abs(len(pairs) - (len(part) if maximum in (0, 40, 1000) else len(part) / 4)) < 1
    assert sum(map(len, made.parts().values())) == (maximum if maximum == 10 else 40)


def test_the_vetted_answer_is_preferred_where_there_is_one():
    pair = make_pairs([SftExample("2 and 3?", "Five, as if you did not know.", answer="Five.")], seed=0)[0]
    assert pair.preferred == "Five."
    assert "as if you did not know" not in pair.dispreferred
