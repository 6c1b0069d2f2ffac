"""Tables in one JSON value: each layout of pandas and of others gives the rows that it was made from, or says what it
is.
"""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fccl.data.formats import SFT_FORMATS, VA_FORMATS
from fccl.data.layouts import COLUMN_NAMES, is_message, rows_key, table_rows
from fccl.errors import DataError

WORDS = st.text("abcde \né", max_size=6)
TABLES = st.lists(
    st.fixed_dictionaries({"instruction": WORDS, "input": WORDS | st.none(), "output": WORDS}), min_size=1, max_size=5
)
MESSAGES = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]


@pytest.mark.parametrize("orient", ["columns", "index", "split"])
@given(rows=TABLES, named=st.booleans())
def test_tables_of_pandas_give_their_rows(orient, rows, named):
    frame = pd.DataFrame(rows, index=[f"id{index}" for index in range(len(rows))] if named else None)
    written = json.loads(frame.to_json(orient=orient))
    assert table_rows(written, "x") == [
        {key: value if value == value else None for key, value in row.items()} for row in rows
    ]


@given(rows=TABLES)
def test_columns_as_lists_give_their_rows(rows):
    assert table_rows({column: [row[column] for row in rows] for column in rows[0]}, "x") == rows


@given(
    rows=TABLES,
    key=st.sampled_from(["data", "rows", "examples", "train", "dataset", "anything"]),
    more=st.dictionaries(st.just("version"), st.text()),
)
def test_one_list_of_rows_is_found_whatever_it_is_called(rows, key, more):
    assert rows_key(more | {key: rows, "info": {"author": "x"}, "tags": ["a"], "none": []}, "x") == key


ONE_ROW = [
    {"instruction": "Q", "output": "A"},
    {"messages": MESSAGES},
    {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
    {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]},
    {"chosen": MESSAGES, "rejected": MESSAGES},
    {"conversations": MESSAGES[:1], "chosen": MESSAGES[1], "rejected": MESSAGES[1]},
    {"chosen": MESSAGES[1], "rejected": MESSAGES[1]},
    {"instruction": "Q", "completions": [{"response": "A", "overall_score": 1}]},
    {"instruction": "Q", "output": "A", "history": [["P", "R"]], "tools": [{"name": "x"}]},
    {"what": "ever"},
    {},
]


@pytest.mark.parametrize("row", ONE_ROW)
def test_one_row_is_no_table(row):
    assert rows_key(row, "x") is None
    assert table_rows(row, "x") is None


@pytest.mark.parametrize("row", ONE_ROW[:-2])
def test_a_table_of_any_row_is_read_by_columns_by_index_and_as_a_list(row):
    assert table_rows({column: {"0": value, "1": value} for column, value in row.items()}, "x") == [row, row]
    assert table_rows({"0": row, "1": row}, "x") == [row, row]
    assert rows_key({"data": [row, row]}, "x") == "data"
    assert table_rows({"columns": list(row), "index": [0], "data": [list(row.values())]}, "x") == [row]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"train": [{"a": 1}], "test": [{"a": 1}]}, r"x holds several lists of rows \(train, test\)"),
        (
            {"instruction": {"0": "Q"}, "output": {"0": "A", "1": "B"}},
            r"columns of different lengths \(instruction: 1, output: 2\)",
        ),
        ({"instruction": ["Q", "P"], "output": ["A"]}, r"columns of different lengths \(instruction: 2, output: 1\)"),
        ({"instruction": {"0": "Q"}, "output": {"1": "A"}}, "columns whose rows have different names"),
    ],
)
def test_what_has_no_single_reading_says_what_it_is(value, message):
    with pytest.raises(DataError, match=message) as caught:
        rows_key(value, "x") or table_rows(value, "x")
    assert "save" in caught.value.hint


def test_every_accepted_column_is_known_here():
    assert {column for known in (*SFT_FORMATS, *VA_FORMATS) for column in known.columns} <= COLUMN_NAMES


@pytest.mark.parametrize("item", [*MESSAGES, {"from": "human", "value": ""}, {"role": "assistant", "tool_calls": []}])
def test_messages_are_told_from_rows(item):
    assert is_message(item)
    assert not is_message({"role": "pirate", "instruction": "Q", "output": "A"})
