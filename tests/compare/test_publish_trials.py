"""Finished trials of a comparison are published as one file, and the published ones are the set's own."""

import runpy
from pathlib import Path

import pytest

from fccl.compare import evidence
from fccl.compare.store import keep
from fccl.compare.values import TrialResult
from fccl.paths import ComparePaths
from tests.compare.test_store import result

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "publish_trials.py"))
archived, finished, main, packed = (SCRIPT[name] for name in ("archived", "finished", "main", "packed"))


def keep_trials(folder, workshop, seeds):
    shop = workshop()
    trials = [result(shop.planner.trial(evidence.scenarios()[0], evidence.methods()[0], seed).spec) for seed in seeds]
    for each in trials:
        keep(ComparePaths(folder), each)
    return trials


def test_an_archive_has_whole_trials_alone_and_grows_by_those_of_another_folder(tmp_path, workshop, capsys):
    archive = tmp_path / "trials.tar.xz"
    first, second = keep_trials(tmp_path / "a", workshop, (1, 2))
    (third,) = keep_trials(tmp_path / "b", workshop, (3,))
    paths = ComparePaths(tmp_path / "a")
    paths.trial("0" * 24).write_text("{}")  # no result
    paths.trial("1" * 24).write_text(first.model_dump_json())  # by another's name
    assert main([str(tmp_path / "a"), str(archive)]) == 0
    before = archive.read_bytes()
    assert main([str(tmp_path / "b"), str(archive)]) == 0
    names = {f"trials/{each.spec.key}.json" for each in (first, second, third)}
    assert set(packed(archive)) == names
    assert main([str(tmp_path / "b"), str(archive)]) == 0
    assert "0 of them new" in capsys.readouterr().out.splitlines()[-1]
    archive.unlink()
    assert main([str(tmp_path / "a"), str(archive)]) == 0
    assert archive.read_bytes() == before


def test_an_archive_that_is_none_and_a_folder_without_trials_are_one_line(tmp_path, workshop, capsys):
    keep_trials(tmp_path / "a", workshop, (1,))
    broken = tmp_path / "broken.tar.xz"
    broken.write_bytes(b"no archive")
    assert main([str(tmp_path / "a"), str(broken)]) == 1
    assert broken.read_bytes() == b"no archive"
    assert main([str(tmp_path / "none"), str(tmp_path / "new.tar.xz")]) == 1
    assert not (tmp_path / "new.tar.xz").exists()
    assert capsys.readouterr().err.count("error: ") == 2


@pytest.mark.parametrize(
    ("archive", "seeds"),
    [("evidence-trials", evidence.JUDGING_SEEDS), ("evidence-trials-201-202", evidence.LOOKED_AT)],
)
def test_what_is_published_are_trials_of_the_primary_set_and_of_what_it_was_before(archive, seeds):
    published = packed(ROOT / "docs" / f"{archive}.tar.xz")
    assert published
    for name, content in published.items():
        found = TrialResult.model_validate_json(content)
        assert name == f"trials/{found.spec.key}.json"
        assert found.spec.plan.seed in seeds
