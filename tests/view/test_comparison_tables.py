"""Tables and pictures of a comparison whose figures are made up, so that every kind of cell is there."""

import io
import re

import pytest
from PIL import Image

from fccl.compare import pictures
from fccl.compare.methods import METHODS
from fccl.compare.styles import style
from fccl.records.comparison import MethodInfo, ScenarioInfo
from fccl.view import comparison_tables as tables
from tests.compare.made_up import PAIRS, comparison, row


def shown(table, cell):
    """A cell in one line: its figure, its interval, its verdict."""
    parts = (cell.text, f"[{cell.interval}]" if cell.interval else "", table.verdict(cell))
    return " ".join(part for part in parts if part)


def lines(table):
    return {line[0].text: tuple(shown(table, cell) for cell in line[1:]) for line in table.cells}


def test_a_row_says_figure_interval_verdict_gap_and_weight():
    sft, va = tables.scenario_tables(comparison())
    assert sft.title == "shuffled answers, 2 of 4 clients"
    found = lines(sft)
    assert found["FCCL, verified"] == (
        "1.822",
        "0.670 [0.664, 0.677]",
        "2/2 ▲ better",
        "50% [49%, 51%]",
        "80% [79%, 81%]",
        "0.50 → 0.00",
        "0",
    )
    assert found["FedAvg"][2] == "(yardstick)"
    assert found["coordinate median"][0] == "not finite"
    assert found["coordinate median"][2] == "0/2 ▼ worse"
    assert lines(va)["FCCL, verified"][:3] == ("0.7001", "+0.0001 [-0.0099, +0.0101]", "0/2 ≈ not worse")
    assert lines(va)["FCCL, verified"][-2:] == ("91.0% [90.0%, 92.0%]", "75% [74%, 76%]")
    assert all(len(line) == len(table.head) for table in (sft, va) for line in table.rows)


def test_seeds_in_which_a_method_is_better_are_counted_one_by_one():
    """Ties, and seeds whose model cannot be scored, are none; a yardstick that cannot be is worse than any."""
    mine = row("shuffled", "verified", 1.0, verdict="better").model_copy(
        update={"seeds": 5, "by_seed": (0.9, 1.0, 1.1, None, 5.0)}
    )
    theirs = row("shuffled", "fedavg", 1.0).model_copy(update={"seeds": 5, "by_seed": (1.0, 1.0, 1.0, 1.0, None)})
    (table,) = tables.scenario_tables(comparison(rows=(theirs, mine), scenarios=comparison().scenarios[:1]))
    assert lines(table)["FCCL, verified"][2] == "2/5 ▲ better"


def test_columns_that_say_nothing_are_left_out():
    sft, va = (table.without_empty_columns() for table in tables.scenario_tables(comparison()))
    assert sft == tables.scenario_tables(comparison())[0]
    assert va.head[1:-1] == ("DPO loss", "minus FedAvg's [95 %]", "seeds, verdict", "seconds", "accuracy")
    assert va.head[-1] == "harmless preferred"
    assert lines(va)["FCCL, verified"][1:3] == ("+0.0001 [-0.0099, +0.0101]", "0/2 ≈ not worse")


def test_the_matrix_has_every_scenario_and_leaves_holes_where_nothing_was_run():
    whole = tables.matrix(comparison())
    assert whole.head == ("method", "shuffled answers", "preferences, flipped")
    assert lines(whole)["FCCL, verified"] == ("1.822 ▲", "0.7001 ≈")
    assert lines(whole)["oracle (no bad clients)"] == ("1.649 ▲", tables.DASH)


def test_how_fast_a_method_is_stands_apart_from_where_it_ends():
    (table,) = tables.speed_tables(comparison())
    assert lines(table) == {
        "FCCL, verified": ("0.670 [0.657, 0.684]", tables.perplexity(1.25), "12,000", "3.5"),
    }


def test_the_primary_set_is_ours_against_every_rival():
    (table,) = tables.pair_tables(comparison(pairs=PAIRS))
    assert table.head == ("scenario", "FedAvg", "coordinate median")
    assert lines(table) == {
        "shuffled answers, 2 of 4 clients": ("0.670 [0.664, 0.677] ▲ better", "not finite ▲ better"),
        "preferences, flipped, 2 of 4 clients": ("+0.0001 [-0.0099, +0.0101] ? not told apart", tables.DASH),
    }
    assert "all 3 pairs" in table.note
    assert tables.pair_tables(comparison()) == []


def test_what_was_not_run_is_named():
    text = tables.to_markdown(comparison(not_run=("shuffled-flat, seed 105: 1.20 core hours more",)))
    assert "not run: shuffled-flat, seed 105" in text


def test_pictures_draw_against_the_pooled_data_where_it_was_compared():
    assert comparison().ceiling == "pooled"
    assert comparison(rows=(row("shuffled", "fedavg", 1.0),)).ceiling == "oracle"


def test_rounds_until_flat_are_said():
    info = ScenarioInfo(name="shuffled", title="shuffled", phase="sft", bad_clients=2, rounds=(7, 12))
    assert tables.scenario_table(comparison(), info).note.endswith("by seed: 7, 12.")


def test_markdown_tables_are_tables():
    text = tables.to_markdown(comparison(), "fccl compare --quick")
    assert "fccl compare --quick" in text
    assert "round 2 has 0 good updates" in text
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 4  # all beside each other, two scenarios, how fast one of them is learnt
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_one_seed_is_said_to_be_one():
    assert "one seed" in " ".join(tables.notes(comparison(seeds=(1,))))
    assert "one seed" not in " ".join(tables.notes(comparison()))


@pytest.mark.parametrize(
    ("count", "these", "differ"), [(1, True, False), (2, True, True), (3, False, False), (5, False, False)]
)
def test_a_verdict_over_few_seeds_is_said_to_be_of_these(count, these, differ):
    says = " ".join(tables.notes(comparison(seeds=tuple(range(count)))))
    assert ("holds for these seeds" in says) is these
    assert ("too narrow where seeds differ" in says) is differ


def test_a_dash_in_the_gaps_has_its_reasons():
    says = " ".join(tables.notes(comparison()))
    for reason in (
        "FedAvg itself",
        "base, alone, centralised",
        "no ceiling",
        "not significantly better",
        "cannot be scored",
    ):
        assert reason in says


@pytest.mark.parametrize(
    ("loss", "shown"),
    [(0.0, "1.000"), (2.0, "7.389"), (4.0, "54.6"), (9.0, "8,103"), (20.0, "4.85e+08"), (1e6, "1.01e+304")],
)
def test_perplexities_have_as_many_digits_as_mean_something(loss, shown):
    assert tables.perplexity(loss) == shown


@pytest.mark.parametrize("wide", [True, False])
def test_pictures_are_pictures(wide):
    one = comparison()
    for png in (
        pictures.summary(one, wide),
        pictures.gaps(one, wide),
        pictures.weights(one, one.scenarios[0], wide),
        pictures.losses(one, one.scenarios[0], wide),
        pictures.losses(one, one.scenarios[1], wide),
    ):
        with Image.open(io.BytesIO(png)) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_the_same_comparison_is_the_same_picture():
    assert pictures.summary(comparison()) == pictures.summary(comparison())


def test_no_weights_no_picture():
    one = comparison(rows=(row("shuffled", "fedavg", 1.0),))
    assert pictures.gaps(one) is None
    assert pictures.weights(one, one.scenarios[0]) is None
    assert pictures.losses(one, one.scenarios[0]) is None


def test_shades_say_better_and_worse():
    one = comparison()
    base, best, broken = (one.row("shuffled", name) for name in ("fedavg", "oracle", "median"))
    assert pictures.shade(best, base) < 0 < pictures.shade(one.row("shuffled", "base"), base)
    assert pictures.shade(broken, base) == 1.0
    assert pictures.shade(base, base) == pictures.shade(None, base) == 0.0


def test_no_two_methods_look_alike():
    assert len({style(name)[:3] for name in METHODS}) == len(METHODS)


def test_the_page_holds_everything_and_asks_the_network_for_nothing():
    from fccl.pages.report.comparison import page

    found = comparison(model="<script>alert(1)</script>")
    html = page(found, pictures.drawn(found), pictures.drawn(found, wide=False), "fccl compare")
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert html.count("data:image/png;base64,") == 10
    assert "http" not in html.replace("http-equiv", "")
    for words in ("▲ better", "▼ worse", "≈ not worse", "0.50 → 0.00", "round 2 has 0 good updates"):
        assert words in html


def tiles_of(found):
    """The text of a comparison's page."""
    from fccl.pages.report.comparison import page

    names = {scenario.name for scenario in found.scenarios}
    no_pictures = pictures.Drawn(None, dict.fromkeys(names), dict.fromkeys(names))
    return " ".join(re.sub("<[^>]*>", " ", page(found, no_pictures, no_pictures)).split())


@pytest.mark.parametrize(
    ("methods", "pairs", "whose"),
    [
        (("tempered", "verified"), (), "verified"),
        (("tempered",), (), "tempered"),
        (("verified", "tempered", "fedavg"), (PAIRS[0].model_copy(update={"method": "tempered"}),), "tempered"),
        (("fedavg",), (), ""),
    ],
)
def test_the_tiles_are_of_the_method_of_the_claim_or_of_the_first_of_ours_that_was_compared(methods, pairs, whose):
    rows = tuple(row("shuffled", name, 2.0, bad_weight=(0.5, 0.25)) for name in methods)
    infos = tuple(MethodInfo(name=name, title=name, settings={}) for name in methods)
    said = tiles_of(comparison(rows=rows, methods=infos, pairs=pairs))
    assert ("mean over scenarios" in said) == bool(whose)
    assert f"0.250 {whose}, mean over scenarios" in said or not whose


@pytest.mark.parametrize("oracle", [True, False])
def test_the_tiles_go_by_who_is_bad_and_not_by_who_was_compared(oracle):
    clean = ScenarioInfo(name="clean-iid", title="clean, IID", phase="sft", bad_clients=0)
    rows = [
        row("shuffled", "verified", 2.0, verdict="worse", bad_weight=(0.5, 0.25)),
        row("clean-iid", "verified", 2.0, verdict="worse"),
    ]
    rows += [row("shuffled", "oracle", 0.5)] if oracle else []
    found = comparison(rows=tuple(rows), scenarios=(comparison().scenarios[0], clean))
    says = tiles_of(found)
    assert "verified is worse than FedAvg 1 of 1 scenarios without bad clients" in says
    assert "weight of the bad clients in the last round 0.250 verified, mean over scenarios" in says


def test_the_lead_counts_the_examples_of_a_kind_together_and_keeps_other_names():
    counts = {"instructions, train": 1804, "instructions, test": 300, "pairs, learn": 48, "rows": 7}
    (said,) = tables.lead(comparison(examples=counts))
    assert said.endswith("Examples (first seed): instructions: train 1,804, test 300; pairs: learn 48; rows 7.")
