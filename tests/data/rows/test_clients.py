"""Names of clients in a column of the data."""

import pytest

from fccl.data.rows.clients import ClientNames
from fccl.data.rows.fields import Malformed


@pytest.mark.parametrize(("value", "name"), [(" north  ward ", "north ward"), (7, "7"), (7.0, "7"), ("Nana", "Nana")])
def test_a_name_is_text_or_a_whole_number(value, name):
    assert ClientNames("site").of({"site": value}) == name


@pytest.mark.parametrize("word", ["nan", " NaN", "N/A", "<NA>"])
def test_a_word_for_nothing_is_named_as_such_and_not_called_empty(word):
    with pytest.raises(Malformed, match="stands for a missing value") as caught:
        ClientNames("site").of({"site": word})
    assert repr(word.strip()) in str(caught.value)
    assert "spell it otherwise" in caught.value.hint


@pytest.mark.parametrize("value", [None, "", "  ", float("nan")])
def test_nothing_is_empty(value):
    with pytest.raises(Malformed, match="'site' is empty"):
        ClientNames("site").of({"site": value})


@pytest.mark.parametrize("value", [0.5, float("inf"), -float("inf"), True, ["a"]])
def test_what_is_no_name_is_refused(value):
    with pytest.raises(Malformed, match="must be text or a whole number"):
        ClientNames("site").of({"site": value})


def test_a_misspelt_column_has_the_nearest_one_as_its_hint():
    with pytest.raises(Malformed, match="has no 'hospitl'") as caught:
        ClientNames("hospitl").of({"text": "a", "hospital": "north"})
    assert caught.value.hint == "CLIENT_COLUMN: did you mean hospital?"
    with pytest.raises(Malformed, match="has no 'qqq'") as caught:
        ClientNames("qqq").of({"text": "a"})
    assert caught.value.hint == "CLIENT_COLUMN must name one of these"
