"""The chart of who mattered: a bar a client, its error where orders were drawn."""

from fccl.view.charts import final_influence
from fccl.view.charts.final_influence import MOST_BARS
from tests.view.test_after import influence


def layers(picture):
    return picture.to_dict()["layer"]  # checks the schema of Vega-Lite too


def rows(picture):
    (table,) = picture.to_dict()["datasets"].values()
    return table


def test_a_bar_a_client_those_that_help_most_first():
    found = rows(final_influence(influence(0.1, 0.7, -0.2), 0))
    assert [row["name"] for row in found] == ["client 1", "client 0", "client 2"]
    assert [row["helps"] for row in found] == ["helps", "helps", "harms"]


def test_errors_are_drawn_where_there_are_any():
    marks = [layer["mark"]["type"] for layer in layers(final_influence(influence(0.1, 0.7), 0))]
    assert marks == ["bar", "tick"]
    drawn = final_influence(influence(0.1, 0.7, error=0.05, orders=4), 0)
    assert [layer["mark"]["type"] for layer in layers(drawn)] == ["bar", "rule", "tick"]
    assert {round(row["high"] - row["low"], 6) for row in rows(drawn)} == {0.1}


def test_of_many_clients_those_that_matter_most_are_shown_and_that_is_said():
    picture = final_influence(influence(*range(-15, 25)), 0)
    assert len(rows(picture)) == MOST_BARS
    assert f"the {MOST_BARS} of 40 clients that matter most" in picture.to_dict()["title"]["subtitle"]


def test_without_such_a_loss_there_is_no_chart():
    assert final_influence(None, 0) is None
    assert final_influence(influence(0.1, 0.2), 1) is None
