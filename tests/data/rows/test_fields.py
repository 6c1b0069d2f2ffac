"""What means that nothing is there, and what is text all the same."""

import datetime

import numpy as np
import pandas as pd
import pytest

from fccl.data.formats import parse_sft
from fccl.data.rows.fields import Malformed, is_empty, is_nothing, optional, text

NOTHING = [None, float("nan"), np.float32("nan").item(), pd.NA, pd.NaT]
WORDS = ["nan", "NaN", "NAN", "N/A", "n/a", "<NA>", " nan ", "", "  \n"]


@pytest.mark.parametrize("value", NOTHING)
def test_null_and_nan_of_every_kind_are_nothing(value):
    assert is_nothing(value)
    assert is_empty(value)
    assert (optional({"a": value}, "a"), text({"a": value}, "a")) == ("", "")


@pytest.mark.parametrize("value", [*WORDS, [], {}, ()])
def test_the_words_for_nothing_leave_an_optional_column_empty(value):
    assert is_empty(value)
    assert optional({"a": value}, "a") == ""


@pytest.mark.parametrize("value", ["None of them", "nano", "0", "n / a", "null"])
def test_a_text_that_only_looks_like_nothing_stays(value):
    assert optional({"a": value}, "a") == value


@pytest.mark.parametrize("value", [0, 1.5, True, ["x"], {"a": "b"}, datetime.date(2020, 1, 1)])
def test_what_is_there_and_no_text_is_malformed(value):
    with pytest.raises(Malformed, match="'a' must be text"):
        optional({"a": value}, "a")


@pytest.mark.parametrize("value", [*NOTHING, *WORDS])
@pytest.mark.parametrize("column", ["input", "context", "system", "history", "tools", "topic", "category"])
def test_nothing_in_an_optional_column_changes_nothing(column, value):
    if column in ("history", "tools") and isinstance(value, str) and value.strip() not in ("", "nan"):
        return
    row = {"instruction": "Q", "output": "A", column: value}
    parsed = parse_sft([(1, row)], "rows")
    assert [(one.instruction, one.response, one.topic) for one in parsed.examples] == [("Q", "A", "")]
    assert parsed.columns_not_used == []


@pytest.mark.parametrize("value", [*NOTHING, "", " "])
@pytest.mark.parametrize("columns", [("instruction", "output"), ("instruction", "response"), ("prompt", "completion")])
def test_an_answer_that_is_not_there_is_nothing_to_learn(columns, value):
    rows = [dict(zip(columns, pair, strict=True)) for pair in (("Q", value), ("Q", "A"))]
    parsed = parse_sft(enumerate(rows, 1), "rows")
    assert (parsed.nothing_to_learn, len(parsed.examples), parsed.bad_rows) == (1, 1, 0)


def test_an_answer_may_say_that_nothing_applies():
    assert parse_sft([(1, {"instruction": "Q", "output": "N/A"})], "rows").examples[0].response == "N/A"
