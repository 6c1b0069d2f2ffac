import pytest

from fccl.exchange.rejected import RejectedFolder, Rejection
from fccl.paths import ExchangePaths


@pytest.fixture
def paths(tmp_path):
    return ExchangePaths(tmp_path)


def test_refused_files_move_with_their_reason(paths, tmp_path):
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_text("precious")
    folder = RejectedFolder(paths)
    paths.flag(1, 0).write_text("")
    paths.update(1, 0).symlink_to(outside)
    first = folder.refuse([paths.flag(1, 0), paths.contribution(1, 0), paths.update(1, 0)], "because", "run", 0, 1)
    assert first.files == ("done_1_0.flag", "client_1_round_0.safetensors")
    paths.flag(1, 0).write_text("")
    folder.refuse([paths.flag(1, 0)], "again", "run", 0, 1)
    assert [rejection.reason for rejection in folder.rejections] == ["because", "again"]
    kept = sorted(path.name.split("_", 1)[1] for path in paths.rejected.iterdir())
    assert kept == ["client_1_round_0.safetensors", "done_1_0.flag", "done_1_0.flag", "reason.json", "reason.json"]
    reasons = [Rejection.model_validate_json(path.read_text()) for path in sorted(paths.rejected.glob("*_reason.json"))]
    assert reasons == folder.rejections
    assert outside.read_text() == "precious"


def test_the_folder_of_refused_files_leads_nowhere_else(paths, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    paths.rejected.symlink_to(elsewhere)
    paths.flag(1, 0).write_text("")
    RejectedFolder(paths).refuse([paths.flag(1, 0)], "because", "run", 0, 1)
    assert list(elsewhere.iterdir()) == []
    assert sorted(path.name.split("_", 1)[1] for path in paths.rejected.iterdir()) == ["done_1_0.flag", "reason.json", "rejected"]


def test_a_name_too_long_to_be_kept_whole_is_cut(paths):
    name = "client_" + "x" * 248
    (paths.root / name).write_text("")
    RejectedFolder(paths).refuse([paths.root / name], "because", "run", 0)
    assert not (paths.root / name).exists()
