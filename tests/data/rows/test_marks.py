"""Rows and messages that say of themselves that they are not to be learnt."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.data.formats import parse_sft, parse_va
from fccl.errors import BadRow

GOOD = {"instruction": "Q", "output": "A"}
PAIR = {"prompt": "Q", "chosen": "A", "rejected": "B"}
MARKED_OUT = [
    *({"label": value} for value in (False, "false", "False", " FALSE ", np.bool_(False))),
    {"kto_tag": False},
    *({"train": value} for value in (False, 0, "false")),
    *({"weight": value} for value in (0, 0.0, "0", "0.0", False)),
    {"trainable": False},
    {"loss": False},
    *({"masked": value} for value in (True, 1, "true")),
    {"mask": True},
    {"ignore": True},
]
LEARNT = [
    {"label": True},
    {"train": True},
    {"weight": 1},
    {"weight": "1.0"},
    {"masked": False},
    {"train": 1},
    {"label": None},
    {"weight": float("nan")},
]


@pytest.mark.parametrize("mark", MARKED_OUT)
def test_a_marked_row_is_counted_and_not_learnt(mark):
    parsed = parse_sft(enumerate([GOOD | mark, GOOD], 1), "rows")
    assert (parsed.rows, parsed.marked, len(parsed.examples), parsed.examples[0].topic) == (2, 1, 1, "")
    assert parsed.columns_not_used == []
    pairs = parse_va(enumerate([PAIR | mark, PAIR], 1), "rows")
    assert (pairs.marked, len(pairs.examples)) == (1, 1)


@pytest.mark.parametrize("mark", LEARNT)
def test_a_row_that_is_to_be_learnt_is(mark):
    parsed = parse_sft([(1, GOOD | mark)], "rows")
    assert (parsed.marked, [one.topic for one in parsed.examples], parsed.columns_not_used) == (0, [""], [])


@pytest.mark.parametrize(
    "mark", [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"masked": True}, {"trainable": 0}, {"loss": False}]
)
@pytest.mark.parametrize("keys", [("role", "content"), ("from", "value")])
def test_a_message_can_say_so_too(mark, keys):
    def turn(who, said, **more):
        return dict(zip(keys, (who, said), strict=True)) | more

    marked = {"messages": [turn("user", "Q"), turn("assistant", "A", **mark)]}
    earlier = {
        "messages": [turn("user", "Q"), turn("assistant", "B", **mark), turn("user", "P"), turn("assistant", "A")]
    }
    parsed = parse_sft(enumerate([marked, earlier], 1), "rows")
    assert (parsed.marked, [one.response for one in parsed.examples]) == (1, ["A"])
    pairs = parse_va(enumerate([PAIR | {"chosen": [turn("assistant", "A", **mark)]}, PAIR], 1), "rows")
    assert (pairs.marked, len(pairs.examples)) == (1, 1)
    pairs = parse_va(enumerate([PAIR | {"rejected": turn("assistant", "A", **mark)}, PAIR], 1), "rows")
    assert (pairs.marked, len(pairs.examples)) == (1, 1)


@pytest.mark.parametrize("weight", [0.5, 2, "0.25"])
def test_a_weight_that_nobody_applies_is_a_column_that_is_not_used(weight):
    parsed = parse_sft([(1, GOOD | {"weight": weight})], "rows")
    assert (parsed.marked, len(parsed.examples), parsed.columns_not_used) == (0, 1, ["weight"])


def test_nothing_can_be_unlearnt():
    with pytest.raises(BadRow, match="'weight' is negative, and nothing can be unlearnt"):
        parse_sft([(1, GOOD | {"weight": -1})], "rows")


@given(
    marks=st.lists(st.booleans(), min_size=1, max_size=20).filter(any), form=st.sampled_from([bool, int, float, str])
)
def test_ktos_labels_are_marks_as_truth_values_numbers_or_words(marks, form):
    rows = [{"prompt": f"Q{index}", "completion": "A", "label": form(mark)} for index, mark in enumerate(marks)]
    parsed = parse_sft(enumerate(rows, 1), "rows")
    assert [one.instruction for one in parsed.examples] == [f"Q{index}" for index, mark in enumerate(marks) if mark]
    assert (parsed.marked, {one.topic for one in parsed.examples}, parsed.columns_not_used) == (
        marks.count(False),
        {""},
        [],
    )


def test_classes_in_numbers_are_topics_and_zero_is_one_of_them():
    rows = [{"prompt": f"Q{index}", "completion": "A", "label": index % 3} for index in range(9)]
    parsed = parse_sft(enumerate(rows, 1), "rows")
    assert (parsed.marked, [one.topic for one in parsed.examples[:3]]) == (0, ["0", "1", "2"])
    asked = parse_sft(enumerate([row | {"label": row["label"] % 2} for row in rows], 1), "rows", topic_column="label")
    assert (asked.marked, {one.topic for one in asked.examples}) == (0, {"0", "1"})
