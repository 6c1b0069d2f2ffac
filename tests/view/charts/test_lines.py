"""The chart of standing: what the rounds so far say against each client."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fccl.contribution import standing
from fccl.view import charts
from fccl.view.charts import lines
from tests.examples import few
from tests.view.charts.reading import all_data, encodings, rows_of, wording
from tests.view.histories import view


def of(run, *standings):
    """The run with these standings of client 0, 1 and so on, the same in every round."""
    return replace(run, shares=run.shares.assign(standing=run.shares["client"].map(dict(enumerate(standings)))))


def drawn(spec):
    return [row for row in rows_of(spec) if "standing" in row]


@settings(max_examples=few(20), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 12), st.integers(1, 30), st.integers(0, 99))
def test_up_to_twelve_clients_have_a_line_each_and_it_is_their_standing_of_both_phases(clients, rounds, seed):
    run = view(clients, rounds, seed=seed)
    found = {(row["at"] - 1, row["name"]): row["standing"] for row in drawn(charts.standing(run).to_dict())}
    shares = run.shares[["round", "client", "standing"]].to_numpy()
    assert found == {(number, f"client {client:.0f}"): standing for number, client, standing in shares}


def test_no_line_goes_on_from_one_phase_into_the_next():
    """A rule begins every phase with no memory."""
    for clients in (3, 20):
        spec = charts.standing(view(clients, 6)).to_dict()
        layers = [layer for layer in spec["layer"] if layer["mark"]["type"] in ("line", "area")]
        assert layers
        assert [layer["encoding"]["detail"]["field"] for layer in layers] == ["phase"] * len(layers)
        phases = {row["at"]: row["phase"] for row in rows_of(spec) if "phase" in row}
        assert phases == {1: "sft", 2: "sft", 3: "sft", 4: "va", 5: "va", 6: "va"}
    assert all("detail" not in each for each in encodings(charts.scores(view(3, 6)).to_dict()))


def test_the_rule_stands_where_a_client_is_out():
    assert lines.OUT == standing.SURE
    spec = charts.standing(view(3, 6)).to_dict()
    named = {row["level"]: row["text"] for row in rows_of(spec) if "level" in row}
    assert named == {2: "out, until 0"}


@pytest.mark.parametrize("highest", [0.0, 0.5, 2.0, 4.0])
def test_the_rule_and_every_standing_are_within_the_axis(highest):
    spec = charts.standing(of(view(2, 4), 0.0, highest)).to_dict()
    low, high = next(each["y"]["scale"]["domain"] for each in encodings(spec) if "domain" in each["y"].get("scale", {}))
    assert low < 0
    assert high > max(2, highest)


def test_of_many_clients_the_median_and_the_lines_of_those_that_rounds_speak_against_most():
    against = np.linspace(0, 3, 20)[np.random.default_rng(3).permutation(20)]
    spec = charts.standing(of(view(20, 6), *against)).to_dict()
    assert np.allclose(all_data(spec, "median")["median"], np.median(against))
    worst = sorted(range(20), key=lambda client: -against[client])[:6]
    assert {row["name"] for row in drawn(spec)} == {f"client {client}" for client in worst}
    assert "lines: the 6 clients that rounds speak against most" in wording(spec)
    assert "speak against" not in wording(charts.standing(view(12, 6)).to_dict())


def test_the_last_word_of_either_phase_gives_a_client_a_line_and_no_earlier_one():
    run = view(20, 6)
    numbers, clients = run.shares["round"], run.shares["client"]
    harmed = (numbers == 2) & (clients == 7) | (numbers == 0) & (clients == 3)  # round 2 is the last of SFT
    shares = run.shares.assign(standing=np.where(harmed, 9.0, clients / 20))
    names = {row["name"] for row in drawn(charts.standing(replace(run, shares=shares)).to_dict())}
    assert names == {f"client {client}" for client in (7, 15, 16, 17, 18, 19)}


def test_a_round_without_standing_has_no_point():
    run = view(3, 6)
    shares = run.shares.assign(standing=run.shares["standing"].where(run.shares["round"] != 1))
    spec = charts.standing(replace(run, shares=shares)).to_dict()
    assert {row["at"] for row in drawn(spec)} == {1, 3, 4, 5, 6}
