"""Folders that are each other, or lie among another's own files, are refused before anything moves."""

import os
from pathlib import Path

import pytest

from fccl.apps.main import main
from fccl.config import load_settings
from fccl.errors import SettingsError
from fccl.library import places
from fccl.library.places import require_apart

ALL = ("data_dir", "log_dir", "exchange_dir", "keys_dir", "state_dir")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def check(used=ALL, out="", expected=None, **folders):
    require_apart(load_settings({name: str(value) for name, value in folders.items()}), used, out, expected)


@pytest.mark.parametrize(("first", "second"), [(a, b) for index, a in enumerate(ALL) for b in ALL[index + 1 :]])
@pytest.mark.parametrize("spelling", ["same", "./same/", "x/../same", "absolute", "link"])
def test_two_that_are_one_folder_are_refused_however_they_are_spelt(tmp_path, first, second, spelling):
    Path("x").mkdir()
    if spelling == "link":
        Path("same").mkdir()
        Path("link").symlink_to("same")
    other = str(tmp_path / "same") if spelling == "absolute" else spelling
    with pytest.raises(SettingsError, match=r"are the same folder"):
        check(**{first: "same", second: other})


@pytest.mark.parametrize(
    "folders",
    [
        {"data_dir": "logs/clients"},
        {"data_dir": "logs/rounds/data"},
        {"data_dir": "logs/runs"},
        {"data_dir": "logs/compare"},
        {"data_dir": "logs/adapter"},
        {"log_dir": "data/server"},
        {"log_dir": "data/clients/logs"},
        {"log_dir": "data/manifest.json"},
        {"exchange_dir": "logs/received"},
        {"exchange_dir": "logs/status_0.json"},
        {"log_dir": "exchange/rejected/logs"},
        {"log_dir": "exchange/client_logs"},
        {"data_dir": "exchange/bell"},
        {"keys_dir": "exchange/keys"},
        {"state_dir": "exchange/state"},
        {"keys_dir": "logs/controls"},
        {"data_dir": ".", "log_dir": "clients"},
        {"log_dir": ".", "data_dir": "rounds"},
    ],
)
def test_one_among_the_files_of_another_is_refused(folders):
    with pytest.raises(SettingsError, match="lies among the files of"):
        check(**folders)


@pytest.mark.parametrize(
    "folders",
    [
        {},
        {"data_dir": "logs/data"},
        {"exchange_dir": "logs/exchange", "keys_dir": "logs/keys"},
        {"log_dir": "exchange/logs", "data_dir": "exchange/data"},
        {"log_dir": "data/logs"},
        {"log_dir": "logs/runs/20260101-000000-abcd"},
        {"data_dir": ".", "log_dir": "logs"},
        {"log_dir": ".", "data_dir": "data", "exchange_dir": "exchange"},
        {"data_dir": "logs2", "exchange_dir": "logs3"},
        {"data_dir": "DATA", "log_dir": "dAta"},
    ],
)
def test_what_cannot_collide_is_allowed(folders):
    check(**folders)


def test_through_links_the_real_place_counts(tmp_path):
    Path("data").mkdir()
    Path("elsewhere").mkdir()
    Path("elsewhere/deep").symlink_to(tmp_path / "data")
    with pytest.raises(SettingsError, match="lies among the files of DATA_DIR=data"):
        check(log_dir="elsewhere/deep/server/logs")
    Path("data/logs").symlink_to(tmp_path / "elsewhere")
    check(log_dir="data/logs")


def test_where_case_makes_no_difference_it_makes_none(monkeypatch):
    monkeypatch.setattr(places, "_ignores_case", lambda real: True)
    with pytest.raises(SettingsError, match="DATA_DIR=Data and LOG_DIR=dATA are the same folder"):
        check(data_dir="Data", log_dir="dATA")
    with pytest.raises(SettingsError, match="lies among the files of"):
        check(log_dir="DATA/Server")


def test_whether_case_makes_a_difference_is_found_out_without_writing(tmp_path, monkeypatch):
    Path("Letters").mkdir()
    assert not places._ignores_case(tmp_path / "Letters" / "new")
    monkeypatch.setattr(os.path, "samefile", lambda first, second: str(first).casefold() == str(second).casefold())
    assert places._ignores_case(tmp_path / "Letters" / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["Letters"]


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (["prepare", "--data-dir", "logs"], "DATA_DIR=logs and LOG_DIR=logs are the same folder"),
        (["run", "--data-dir", "logs"], "DATA_DIR=logs and LOG_DIR=logs are the same folder"),
        (["run", "--data-dir", "logs/clients"], "DATA_DIR=logs/clients lies among the files of LOG_DIR=logs"),
        (["orchestrator", "--exchange-dir", "./logs"], "LOG_DIR=logs and EXCHANGE_DIR=logs are the same folder"),
        (
            ["orchestrator", "--new", "--exchange-dir", "data"],
            "DATA_DIR=data and EXCHANGE_DIR=data are the same folder",
        ),
        (
            ["orchestrator", "--keys-dir", "exchange/keys"],
            "KEYS_DIR=exchange/keys lies among the files of EXCHANGE_DIR=exchange",
        ),
        (["client", "--keys-dir", "data", "--data-dir", "data"], "DATA_DIR=data and KEYS_DIR=data are the same folder"),
        (
            ["export", "data/server/model"],
            "the place to write to (data/server/model) lies among the files of DATA_DIR=data",
        ),
        (["export", "logs"], "LOG_DIR=logs and the place to write to (logs) are the same folder"),
        (
            ["report", "logs/compare/index.html"],
            "the place to write to (logs/compare/index.html) lies among the files of LOG_DIR=logs",
        ),
        (
            ["report", "exchange/client_1.html"],
            "the place to write to (exchange/client_1.html) lies among the files of EXCHANGE_DIR=exchange",
        ),
        (["compare", "--out", "logs"], "LOG_DIR=logs and the place to write to (logs) are the same folder"),
        (["compare", "--out", "logs/runs"], "the place to write to (logs/runs) lies among the files of LOG_DIR=logs"),
        (
            ["compare", "--out", ".", "--log-dir", "trials"],
            "LOG_DIR=trials lies among the files of the place to write to (.)",
        ),
    ],
)
def test_commands_refuse_with_one_line_and_touch_nothing(tmp_path, capsys, command, error):
    for folder in ("data", "logs"):
        Path(folder).mkdir()
        Path(folder, "manifest.json").write_text("precious")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    assert main(command) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ", 1)[1] for line in said if line.startswith("error")] == [error]
    assert said[-1] == "  hint: give each a folder of its own"
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_the_usual_places_of_report_and_comparison_are_theirs():
    check(("log_dir", "exchange_dir"), "logs/report.html", Path("logs/report.html"))
    check(("log_dir",), "logs/compare", Path("logs/compare"))
    check(("log_dir",), "logs/../logs/compare", Path("logs/compare"))
