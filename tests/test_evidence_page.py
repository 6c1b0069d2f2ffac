"""The figures of docs/evidence.md and docs/rivals.md come from comparisons by a command."""

import runpy
from pathlib import Path

import pytest

from fccl.errors import DataError
from fccl.paths import ComparePaths
from tests.compare.made_up import PAIRS, comparison

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "evidence_page.py"))
PARTS, pages, read = (SCRIPT[name] for name in ("PARTS", "pages", "read"))


def copied(folder):
    for name in {part.page for part in PARTS}:
        (folder / name).write_bytes((ROOT / "docs" / name).read_bytes())
    return folder


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.mark)
def test_every_part_has_its_place_on_its_page(part):
    text = (ROOT / "docs" / part.page).read_text("utf-8")
    assert text.count(part.begin) == 1
    assert "<!-- end -->" in text.partition(part.begin)[2]


def test_figures_take_the_place_of_what_stood_between_the_marks_and_of_nothing_else(tmp_path):
    made = comparison(pairs=PAIRS)
    texts = pages({part.of: made for part in PARTS}, copied(tmp_path))
    for path, text in texts.items():
        before = path.read_text("utf-8")
        for part in (each for each in PARTS if each.page == path.name):
            for page in (before, text):
                assert page.count(part.begin) == 1
            assert text.partition(part.begin)[0].splitlines()[:3] == before.splitlines()[:3]
            assert text.rpartition("<!-- end -->")[2] == before.rpartition("<!-- end -->")[2]
    evidence = texts[tmp_path / "evidence.md"]
    assert "of 3 pairs better 2" in evidence
    assert max(len(line) for line in evidence.splitlines() if not line.startswith("|")) <= 120


def test_the_same_figures_again_change_nothing(tmp_path):
    made = {part.of: comparison(pairs=PAIRS) for part in PARTS}
    once = pages(made, copied(tmp_path))
    for path, text in once.items():
        path.write_text(text, "utf-8")
    assert pages(made, tmp_path) == once


@pytest.mark.parametrize(("seeds", "words"), [((201,), "201"), ((201, 202), "201, 202")])
def test_a_set_without_verdicts_says_which_seeds_are_there_and_claims_nothing(tmp_path, seeds, words):
    texts = pages({"set": comparison(pairs=(), seeds=seeds)}, copied(tmp_path))
    (claim,) = (part for part in PARTS if part.mark == "claim")
    said = texts[tmp_path / "evidence.md"].partition(claim.begin)[2].partition("<!-- end -->")[0]
    assert f"in whole or in part: {words}. No claim rests on them." in " ".join(said.split())
    assert "|" not in said


def test_a_part_that_is_not_given_stays_as_it_is(tmp_path):
    texts = pages({"set": comparison(pairs=PAIRS)}, copied(tmp_path))
    (quick,) = (part for part in PARTS if part.mark == "quick")

    def figures(text):
        return text.partition(quick.begin)[2].partition("<!-- end -->")[0]

    assert figures(texts[tmp_path / "evidence.md"]) == figures((tmp_path / "evidence.md").read_text("utf-8"))


def test_a_folder_without_a_comparison_is_one_line(tmp_path):
    with pytest.raises(DataError, match="is not there"):
        read(f"set={tmp_path}")
    with pytest.raises(DataError, match="no part is called"):
        read(f"sets={tmp_path}")
    path = ComparePaths(tmp_path).results
    path.write_text(comparison().model_dump_json())
    assert read(f"quick={tmp_path}") == ("quick", comparison())


def test_a_page_that_has_lost_its_marks_is_not_written(tmp_path):
    folder = copied(tmp_path)
    (folder / "evidence.md").write_text("# Evidence\n")
    with pytest.raises(DataError, match="has no <!-- quick"):
        pages({"quick": comparison()}, folder)
