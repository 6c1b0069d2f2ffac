"""Labels as topics; truth values, scores and numbers of rows are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.data.formats import parse_sft, parse_va


def rows(labels, column="label"):
    return enumerate(
        ({"instruction": f"Q{index}", "output": "A", column: label} for index, label in enumerate(labels)), 1
    )


SCORES = [
    ([index / 7 for index in range(3000)], "scores, 3,000 different ones in 3,000 rows"),
    ([str(index / 7) for index in range(100)], "scores, 100 different ones in 100 rows"),
    ([index % 30 + 0.5 for index in range(3000)], "scores, 30 different ones in 3,000 rows"),
    (list(range(5000)), "5,000 different numbers in 5,000 rows"),
    ([index % 400 for index in range(1000)], "400 different numbers in 1,000 rows"),
    ([f"id-{index:x}" for index in range(200)], "200 different labels in 200 rows"),
]


@pytest.mark.parametrize(("labels", "why"), SCORES)
@pytest.mark.parametrize("column", ["label", "topic", "category"])
def test_a_column_of_scores_is_no_topic_and_is_named(labels, why, column):
    parsed = parse_sft(rows(labels, column), "rows")
    assert {one.topic for one in parsed.examples} == {""}
    assert parsed.columns_not_used == [f"{column} ({why})"]


TOPICS = [
    [index % 150 for index in range(1500)],
    [f"class {index % 77}" for index in range(400)],
    [1.5, 2.5, 1.5],
    ["a", "b", "c"],
    list(range(20)),
]


@pytest.mark.parametrize("labels", TOPICS)
def test_a_column_of_classes_is_the_topic(labels):
    parsed = parse_sft(rows(labels), "rows")
    assert [one.topic for one in parsed.examples] == [str(label) for label in labels]
    assert parsed.columns_not_used == []


def test_scores_make_way_for_the_next_column():
    both = (
        {"instruction": f"Q{index}", "output": "A", "topic": index / 7, "category": "cooking"} for index in range(100)
    )
    parsed = parse_sft(enumerate(both, 1), "rows")
    assert {one.topic for one in parsed.examples} == {"cooking"}
    assert parsed.columns_not_used == ["topic (scores, 100 different ones in 100 rows)"]


def test_a_column_that_the_user_names_is_taken_as_it_is():
    parsed = parse_sft(rows([index / 7 for index in range(50)]), "rows", topic_column="label")
    assert len({one.topic for one in parsed.examples}) == 50


@given(
    st.lists(st.sampled_from([True, False, "true", "False", None, float("nan"), "nan", "N/A"]), min_size=1, max_size=12)
)
def test_truth_values_and_nothing_are_never_a_topic(values):
    pairs = [
        {"prompt": f"Q{index}", "chosen": "A", "rejected": "B", "category": value} for index, value in enumerate(values)
    ]
    for column in ("", "category"):
        assert {one.topic for one in parse_va(enumerate(pairs, 1), "rows", topic_column=column).examples} == {""}


@given(st.lists(st.floats(allow_nan=False) | st.integers(-(10**400), 10**400), min_size=1, max_size=30))
def test_any_number_is_a_label_or_a_score(values):
    parsed = parse_sft(rows(values, "category"), "rows")
    assert len(parsed.examples) == len(values)
