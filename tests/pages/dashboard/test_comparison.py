"""What the page shows of a comparison of methods."""

import re
from html import unescape

import pytest

from fccl.paths import LogPaths
from fccl.storage.files import write_text
from tests.compare.made_up import comparison
from tests.pages.script import charts, sentence, shown, texts
from tests.view.logs import Logs


@pytest.fixture
def results(tmp_path):
    """Where `fccl compare` writes them, beside a run."""
    return Logs(tmp_path / "logs").begin().paths.compare.results


def tabs(page):
    return [tab.label for tab in page.tabs]


def rows(page, says):
    """The rows of the HTML table that is called so, as texts of cells, its head first."""
    (body,) = [
        each.proto.body
        for each in page.get("html")
        if f'<caption class="fccl-hidden">{says}</caption>' in each.proto.body
    ]
    cells = [re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>", body)]
    return [[" ".join(unescape(re.sub("<[^>]*>", " ", cell)).split()) for cell in row] for row in cells]


def test_the_tab_is_there_when_there_are_results_and_goes_with_them(page, results):
    assert "Methods" not in tabs(shown(page))
    results.parent.mkdir()
    (results.parent / "cells").mkdir()
    assert "Methods" not in tabs(shown(page))
    write_text(results, comparison().model_dump_json())
    assert "Methods" in tabs(shown(page))
    results.unlink()
    assert "Methods" not in tabs(shown(page))


@pytest.mark.parametrize("content", ["", "{}", comparison().model_dump_json()[:-50], "[1, 2", "\x00"])
def test_a_half_written_or_foreign_file_is_no_results(page, results, content):
    write_text(results, content)
    assert "Methods" not in tabs(shown(page))


def test_every_method_has_its_figures_and_its_verdict(page, results):
    write_text(results, comparison().model_dump_json())
    shown(page, "Methods")
    assert charts(page) == 1
    whole = rows(page, "Every method in every scenario")
    assert whole[0] == ["method", "shuffled answers", "preferences, flipped"]
    assert ["FCCL, verified", "1.822 ▲", "0.7001 ≈"] in whole
    found = {row[0]: row[1:] for row in rows(page, "Every method, shuffled answers, 2 of 4 clients")}
    assert found["method"] == [
        "perplexity",
        "× FedAvg's [95 %]",
        "seeds, verdict",
        "gap to pooled data [95 %]",
        "gap to the oracle [95 %]",
        "bad clients' weight",
        "seconds",
    ]
    assert found["FCCL, verified"] == [
        "1.822",
        "0.670 [0.664, 0.677]",
        "2/2 ▲ better",
        "50% [49%, 51%]",
        "80% [79%, 81%]",
        "0.50 → 0.00",
        "0",
    ]
    assert found["FedAvg"][2] == "(yardstick)"
    said = texts(page)
    assert "builtin:micro, 4 clients, 2 rounds, seeds 1, 2." in said
    assert "! coordinate median: seed 1: ended early: round 2 has 0 good updates" in said
    assert [each.label for each in page.expander] == ["How to read it"]


def test_another_scenario_can_be_chosen_and_one_without_a_gap_says_so(page, results):
    usual = comparison()
    clean = usual.scenarios[1].model_copy(update={"bad_clients": 0, "title": "preferences, clean"})
    write_text(results, usual.model_copy(update={"scenarios": (usual.scenarios[0], clean)}).model_dump_json())
    shown(page, "Methods")
    assert page.selectbox(key="scenario").value == "shuffled"
    page.selectbox(key="scenario").set_value("flipped")
    shown(page)
    assert charts(page) == 0
    assert "No client is bad in this scenario" in texts(page)
    found = {row[0]: row[1:] for row in rows(page, "Every method, preferences, clean")}
    heads = ["DPO loss", "minus FedAvg's [95 %]", "seeds, verdict", "seconds", "accuracy", "harmless preferred"]
    assert found["method"] == heads
    assert found["FCCL, verified"][1:3] == ["+0.0001 [-0.0099, +0.0101]", "0/2 ≈ not worse"]


def test_the_first_scenario_shown_has_a_gap_to_close(page, results):
    usual = comparison()
    write_text(results, usual.model_copy(update={"scenarios": usual.scenarios[::-1]}).model_dump_json())
    assert shown(page, "Methods").selectbox(key="scenario").value == "shuffled"


def test_new_results_take_the_place_of_old_ones(page, results):
    write_text(results, comparison().model_dump_json())
    assert "builtin:micro" in texts(shown(page, "Methods"))
    write_text(results, comparison(model="gpt2").model_dump_json())
    assert "gpt2, 4 clients" in texts(shown(page))


def test_a_comparison_needs_no_run(page, tmp_path):
    write_text(LogPaths(tmp_path / "logs").compare.results, comparison().model_dump_json())
    shown(page)
    assert sentence(page) == "No run in logs/ yet."
    assert charts(page) == 1
    assert rows(page, "Every method in every scenario")[0][0] == "method"
