"""Charts on their way to the browser."""

import threading

import altair as alt
import pandas as pd
import pytest

from fccl.pages.dashboard.vega import GREYS, spec_of
from fccl.view import charts
from tests.view import histories

VIEW = histories.view()
DRAWN = {
    "client_losses": lambda: charts.client_losses(VIEW, "va"),
    "validation_loss": lambda: charts.validation_loss(VIEW, "sft"),
    "preference_accuracy": lambda: charts.preference_accuracy(VIEW),
    "weights_area": lambda: charts.weights_area(VIEW),
    "weights_heat": lambda: charts.weights_heat(VIEW),
    "weight_against_samples": lambda: charts.weight_against_samples(VIEW),
    "scores": lambda: charts.scores(VIEW),
    "effective_clients": lambda: charts.effective_clients(VIEW),
    "topics": lambda: charts.topics(histories.manifest(), "sft"),
    "evaluation": lambda: charts.evaluation(histories.evaluation(), "exact"),
    "overlay": lambda: charts.overlay(VIEW, histories.view(seed=1, run_id="other"), "sft"),
}


def data_names(part):
    """Every name that some part of a chart takes its data from."""
    if isinstance(part, dict):
        own = [part["data"]["name"]] if "name" in part.get("data", {}) else []
        return own + [name for value in part.values() for name in data_names(value)]
    return [name for value in part for name in data_names(value)] if isinstance(part, list) else []


@pytest.mark.parametrize("name", DRAWN)
def test_a_chart_finds_its_tables_and_has_what_a_page_needs(name):
    spec = spec_of(DRAWN[name](), "what it shows", 170, "dark")
    assert set(data_names(spec)) == set(spec["datasets"])
    assert spec["datasets"]
    assert all(isinstance(table, pd.DataFrame) and len(table) for table in spec["datasets"].values())
    assert (spec["height"], spec["width"], spec["description"]) == (170, "container", "what it shows")
    assert spec["config"]["text"]["color"] == spec["config"]["title"]["subtitleColor"] == GREYS["dark"]


@pytest.mark.parametrize("name", DRAWN)
def test_it_is_valid_vega_lite(name):
    """`spec_of` leaves the check out, for its time."""
    spec = spec_of(DRAWN[name](), "what it shows", None, "light")
    inline = spec | {"datasets": {each: table.to_dict("records") for each, table in spec["datasets"].items()}}
    alt.Chart.from_dict(inline, validate=True)


def test_threads_do_not_take_each_others_tables():
    pictures = [alt.Chart(pd.DataFrame({"x": [number]})).mark_point().encode(x="x:Q") for number in range(40)]
    found = {}

    def draw(number):
        found[number] = spec_of(pictures[number], "", None, "light")["datasets"]

    threads = [threading.Thread(target=draw, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [next(iter(found[number].values()))["x"].tolist() for number in range(40)] == [
        [number] for number in range(40)
    ]
    assert alt.data_transformers.active == "default"
