"""The charts: what they draw is what the tables say, however long the run; and a browser gets no more than it
can draw."""

import json
import math
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import vl_convert
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fccl.view import charts
from fccl.view.charts import palette
from fccl.view.charts.rounds import numbered
from tests.examples import few
from tests.view.charts.reading import all_data, encodings, rows_of, wording
from tests.view.histories import evaluation, manifest, view

MOST = 5_050
PHASES = ("sft", "va")
OF_A_RUN = {
    **{f"client_losses {phase}": lambda v, phase=phase: charts.client_losses(v, phase, (0, 3)) for phase in PHASES},
    **{f"validation_loss {phase}": lambda v, phase=phase: charts.validation_loss(v, phase) for phase in PHASES},
    **{
        f"overlay {phase}": lambda v, phase=phase: charts.overlay(v, view(2, 8, seed=9, run_id="other"), phase)
        for phase in PHASES
    },
    **{f"scores {phase}": lambda v, phase=phase: charts.scores(v, phase, (0, 3)) for phase in (*PHASES, None)},
    "preference_accuracy": charts.preference_accuracy,
    "weights_area": charts.weights_area,
    "weights_heat": charts.weights_heat,
    "weight_against_samples": charts.weight_against_samples,
    "effective_clients": charts.effective_clients,
    "prior_and_weight": charts.prior_and_weight,
    "verification_gain": charts.verification_gain,
    "verification_seconds": charts.verification_seconds,
    "lora_error": charts.lora_error,
    "standing": charts.standing,
}


@cache
def long_run():
    return view(clients=200, rounds=500)


def ticks_of(spec):
    """What stands below the plot when Vega has drawn it."""
    drawing = vl_convert.vegalite_to_svg(spec | {"width": 500}, allowed_base_urls=[])
    return re.findall(">([^<]*)</text>", re.findall("role-axis-label.*?</g>", drawing)[0])


shapes = st.tuples(st.integers(1, 40), st.integers(1, 30), st.integers(0, 40), st.integers(0, 99)).filter(
    lambda shape: shape[2] <= shape[0]
)


# --- every chart


@settings(max_examples=few(8), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shapes, st.lists(st.sampled_from(list(OF_A_RUN)), min_size=6, max_size=6, unique=True))
def test_every_run_has_charts_that_vega_lite_accepts(shape, names):
    """Six charts of each run: to hold one against the schema takes fifty milliseconds."""
    clients, rounds, per_round, seed = shape
    run = view(clients, rounds, per_round, seed)
    for name in names:
        chart = OF_A_RUN[name](run)
        if chart is None:
            assert rounds == 1, name
            assert name.split()[0] in ("client_losses", "validation_loss", "preference_accuracy", "scores")
            continue
        spec = chart.to_dict()  # held against the schema
        assert spec["width"] == "container"
        assert spec["title"]["text"]
        assert spec["description"].startswith(spec["title"]["text"])
        at = [row["at"] for row in rows_of(spec) if "rounds" in row]
        assert not at or (min(at) >= 1 and max(at) <= max(rounds, 8)), name


@pytest.mark.parametrize("name", OF_A_RUN)
def test_without_rounds_there_is_no_chart(name):
    nothing = view(rounds=0)
    assert (charts.overlay(nothing, nothing, "sft") if name.startswith("overlay") else OF_A_RUN[name](nothing)) is None


@pytest.mark.parametrize("name", OF_A_RUN)
def test_a_long_run_of_many_clients_is_put_together_and_says_so(name):
    spec = OF_A_RUN[name](long_run()).to_dict()
    assert 0 < len(rows_of(spec)) <= MOST
    if not name.startswith("overlay"):
        assert any(word in wording(spec) for word in ("mean of", "each point", "of 200 clients")), wording(spec)


@pytest.mark.parametrize("name", OF_A_RUN)
def test_every_chart_is_drawn_by_vega(name):
    for run in (view(3, 6), view(20, 3, per_round=5)):
        drawing = vl_convert.vegalite_to_svg(OF_A_RUN[name](run).properties(width=300).to_dict(), allowed_base_urls=[])
        assert "NaN" not in drawing
        assert "undefined" not in drawing
        assert drawing.count("<path") + drawing.count("<line") > 10


def test_axes_have_titles_and_units():
    for name, draw in OF_A_RUN.items():
        for encoding in encodings(draw(view(3, 6)).to_dict()):
            for side in ("x", "y"):
                channel = encoding.get(side, {})
                assert (
                    "field" not in channel
                    or "title" in channel
                    or channel["field"] in ("at", "level", "middle", "weight")
                ), (name, channel)
    assert (
        encodings(charts.validation_loss(view(3, 6), "sft").to_dict())[0]["y"]["title"]
        == "loss (nats per response token)"
    )
    assert encodings(charts.client_losses(view(3, 6), "va").to_dict())[0]["y"]["title"] == "loss (nats per pair)"


# --- rounds


@settings(max_examples=few(60), deadline=None)
@given(st.integers(1, 3000), st.integers(0, 3000), st.integers(1, 200))
def test_spans_of_rounds_cover_every_round_once_and_keep_the_phases_apart(sft, va, most):
    frame = pd.DataFrame({"round": range(sft + va), "phase": ["sft"] * sft + ["va"] * va})
    spans, width = numbered(frame, most)
    assert ((spans["first"] <= spans["round"] + 1) & (spans["round"] + 1 <= spans["last"])).all()
    assert (spans["last"] - spans["first"] < width).all()
    edges = spans.drop_duplicates(["first", "last"])
    assert len(edges) <= most + 2
    assert (edges["first"].to_numpy()[1:] == edges["last"].to_numpy()[:-1] + 1).all()
    assert spans.groupby("first")["phase"].nunique().max() == 1


def test_the_first_round_is_one():
    spec = charts.validation_loss(view(3, 6), "sft").to_dict()
    assert all_data(spec, "validation_loss")["at"].tolist() == [1, 2, 3]
    assert ticks_of(spec) == ["1", "2", "3"]


@pytest.mark.parametrize("rounds", [1, 2, 3, 4, 5, 6, 8, 40, 500])
def test_the_axis_of_rounds_bears_whole_numbers_and_every_one_of_few(rounds):
    for draw in (charts.effective_clients, charts.weights_area):
        marks = [int(text) for text in ticks_of(draw(view(3, rounds)).to_dict())]
        step = 1 if rounds <= 10 else 5 if rounds == 40 else 50
        assert marks == [number for number in range(1, rounds + 1) if number % step == 0]


# --- what is drawn


def test_up_to_twelve_clients_have_a_line_each():
    for clients in (1, 12):
        spec = charts.client_losses(view(clients, 6), "sft").to_dict()
        table = all_data(spec, "avg_loss")
        assert set(table["name"]) == {f"client {client}" for client in range(clients)}
        assert len(table) == 3 * clients


def test_of_more_the_median_the_band_and_those_that_were_asked_for():
    run = view(13, 8, per_round=9)
    spec = charts.client_losses(run, "va", highlight=(4, 99)).to_dict()
    band = all_data(spec, "median")
    for at, low, median, high in band[["at", "low", "median", "high"]].to_numpy():
        losses = run.shares[run.shares["round"] == at - 1]["avg_loss"].to_numpy()
        assert np.allclose([low, median, high], np.quantile(losses, [0.1, 0.5, 0.9]))
    assert set(all_data(spec, "name")["name"]) == {"client 4"}


def test_the_base_model_and_the_reference_policy_are_rules():
    run = view(3, 6)
    assert all_data(charts.validation_loss(run, "sft").to_dict(), "level").to_dict("records") == [
        {"level": 6.5, "text": "base model 6.50"}
    ]
    assert all_data(charts.validation_loss(run, "va").to_dict(), "level")["level"].tolist() == pytest.approx(
        [math.log(2)]
    )
    without = replace(view(3, 6), base=None)
    assert not any("level" in row for row in rows_of(charts.validation_loss(without, "sft").to_dict()))


def test_a_base_far_above_is_drawn_on_a_logarithmic_axis():
    run = view(3, 6)
    low = replace(run, rounds=run.rounds.assign(validation_loss=0.4))
    y = encodings(charts.validation_loss(low, "sft").to_dict())[0]["y"]
    assert y["scale"]["type"] == "log"
    assert "log" in y["title"]
    assert "type" not in encodings(charts.validation_loss(run, "sft").to_dict())[0]["y"]["scale"]


@settings(max_examples=few(10), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shapes)
def test_stacked_weights_are_the_weights_and_fill_the_column(shape):
    clients, rounds, per_round, seed = shape
    run = view(clients, rounds, per_round, seed)
    table = all_data(charts.weights_area(run).to_dict(), "high")
    for _, column in table.groupby("at"):
        assert column["weight"].sum() == pytest.approx(1.0)
        assert np.allclose(column["low"].to_numpy()[1:], column["high"].to_numpy()[:-1])
    drawn = {(int(at) - 1, name): weight for at, name, weight in table[["at", "name", "weight"]].to_numpy()}
    weights = {
        (number, f"client {client}"): weight
        for number, client, weight in run.shares[["round", "client", "weight"]].to_numpy()
    }
    weights = {(int(number), name.removesuffix(".0")): weight for (number, name), weight in weights.items()}
    named = {key: weight for key, weight in drawn.items() if key[1] != "others"}
    assert named == pytest.approx({key: weights[key] for key in named})
    names = {name for _, name in drawn}
    appeared = run.shares["client"].nunique()
    assert len(names - {"others"}) == (appeared if appeared <= 12 else 11)


def test_a_weight_that_is_averaged_over_rounds_counts_absence_as_nothing():
    """Two clients take turns for 400 rounds: each has half of every span."""
    run = view(2, 400, per_round=1)
    shares = run.shares.assign(client=run.shares["round"] % 2)
    table = all_data(charts.weights_area(replace(run, shares=shares)).to_dict(), "high")
    assert len(table) <= 2 * 102
    assert np.allclose(table["weight"], 0.5)


def test_cells_of_the_heat_map_are_means_of_what_they_hold():
    table = all_data(charts.weights_heat(long_run()).to_dict(), "weight")
    assert table["at"].nunique() == 100
    assert table["label"].nunique() == 50
    for at, label, weight in table[["at", "label", "weight"]].sample(40, random_state=1).to_numpy():
        low, high = map(int, label.split("–"))
        shares = long_run().shares
        inside = shares[shares["client"].between(low, high) & shares["round"].between(at - 3, at + 1)]
        assert len(inside) == 20
        assert weight == pytest.approx(inside["weight"].mean())


def test_a_client_that_was_not_aggregated_has_no_cell():
    run = view(8, 6, per_round=3)
    table = all_data(charts.weights_heat(run).to_dict(), "label")
    assert len(table) == 18


def test_who_gained_and_who_lost_has_a_shape_of_its_own():
    run = view(5, 6)
    spec = charts.weight_against_samples(run).to_dict()
    table = all_data(spec, "change").set_index("client")
    means = run.shares.groupby("client")[["weight", "sample_share"]].mean()
    for client, row in means.iterrows():
        change = row["weight"] - row["sample_share"]
        assert table.loc[client, "kind"] == (
            "gained influence" if change > 0.0005 else "lost influence" if change < -0.0005 else "unchanged"
        )
    shape = next(encoding["shape"] for encoding in encodings(spec) if "shape" in encoding)
    assert len(set(shape["scale"]["range"])) == len(shape["scale"]["domain"])
    even = replace(run, shares=run.shares.assign(weight=0.2, sample_share=0.2))
    assert set(all_data(charts.weight_against_samples(even).to_dict(), "kind")["kind"]) == {"unchanged"}


def test_of_many_clients_those_with_the_largest_changes():
    table = all_data(charts.weight_against_samples(long_run()).to_dict(), "change")
    means = long_run().shares.groupby("client")[["weight", "sample_share"]].mean()
    largest = (means["weight"] - means["sample_share"]).abs().nlargest(16)
    assert set(table["client"]) == set(largest.index)


def test_the_prior_is_the_last_round_s():
    run = view(3, 6)
    spec = charts.prior_and_weight(run).to_dict()
    last = run.shares[run.shares["round"] == 5]
    table = all_data(spec, "prior").set_index("client")
    assert table["prior"].tolist() == last["prior"].tolist()
    assert table["weight"].tolist() == last["weight"].tolist()
    assert spec["title"]["text"] == "From prior to verified weight, round 6"


def test_what_verification_won_is_a_share_of_the_loss_with_the_prior():
    run = view(3, 6)
    spec = charts.verification_gain(run).to_dict()
    assert np.allclose(all_data(spec, "gain")["gain"], 0.2)  # 1 - 1 / 1.25
    rounds = run.rounds.assign(loss_prior=[math.nan, 0.0, *run.rounds["loss_prior"][2:]])
    assert all_data(charts.verification_gain(replace(run, rounds=rounds)).to_dict(), "gain")["at"].tolist() == [
        3,
        4,
        5,
        6,
    ]


def test_a_run_without_verification_has_no_picture_of_it():
    run = view(3, 6)
    none = replace(
        run,
        rounds=run.rounds.assign(
            loss_prior=math.nan, loss_weights=math.nan, verify_seconds=math.nan, lora_error=math.nan
        ),
        shares=run.shares.assign(prior=math.nan, standing=math.nan),
    )
    names = ("prior_and_weight", "verification_gain", "verification_seconds", "lora_error", "standing")
    assert [OF_A_RUN[name](none) for name in names] == [None] * 5


def test_two_runs_differ_by_dash_and_colour_and_begin_at_the_phases_first_round():
    short, long = view(3, 4, run_id="a"), view(3, 40, run_id="b")
    spec = charts.overlay(short, long, "va").to_dict()
    table = all_data(spec, "run")
    assert table.groupby("run")["at"].agg(["min", "max"]).to_numpy().tolist() == [[1, 2], [1, 20]]
    (encoding,) = encodings(spec)
    for channel in ("color", "strokeDash"):
        assert encoding[channel]["scale"]["domain"] == ["a", "b"]
        assert len({json.dumps(value) for value in encoding[channel]["scale"]["range"]}) == 2
    assert len(set(all_data(charts.overlay(short, short, "va").to_dict(), "run")["run"])) == 2, (
        "a run may be laid over itself"
    )


def test_effective_clients_stand_beside_those_aggregated():
    run = view(5, 6)
    table = all_data(charts.effective_clients(run).to_dict(), "value").pivot(index="at", columns="name", values="value")
    assert table["effective (1 / Σw²)"].tolist() == pytest.approx(run.rounds["effective_clients"].tolist())
    assert (table["aggregated"] == 5).all()


EVIL = '<script>alert("x")</script></svg><img src=x onerror=alert(1)>'


def test_names_from_the_data_stay_text_when_they_are_drawn():
    for chart in (
        charts.topics(manifest(2, (EVIL, "b")), "sft"),
        charts.evaluation(evaluation(("base", EVIL)), "exact"),
        charts.overlay(view(2, 4, run_id=EVIL), view(2, 4), "sft"),
    ):
        drawing = vl_convert.vegalite_to_svg(chart.properties(width=900).to_dict(), allowed_base_urls=[])
        assert "<script" not in drawing
        assert "<img" not in drawing
        assert "&lt;script" in drawing


# --- colours


def test_a_client_has_one_colour_in_every_chart():
    run, seen = view(12, 8), {}
    for name in ("client_losses sft", "client_losses va", "scores sft", "weights_area", "standing"):
        for encoding in encodings(OF_A_RUN[name](run).to_dict()):
            scale = encoding.get("color", {}).get("scale", {})
            for client, colour in zip(scale.get("domain", []), scale.get("range", []), strict=True):
                assert seen.setdefault(client, colour) == colour
    assert seen == {f"client {client}": palette.colour(client) for client in range(12)}
