import json
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.pages.dashboard.exchange import rejection_row
from fccl.paths import ExchangePaths
from fccl.testing.processes import client_processes, exchange_spec
from fccl.testing.toy import START, ToyLearner, federation
from fccl.transports.exchange.quarantine import Quarantine
from fccl.transports.exchange.server import ExchangeTransport
from fccl.view import exchange as module
from fccl.view.exchange import ExchangeReader
from tests.examples import few
from tests.transports.obstacles import INSTEAD_OF_A_FOLDER, put
from tests.transports.obstacles import names as place_names


@pytest.fixture
def paths(tmp_path):
    paths = ExchangePaths(tmp_path / "exchange")
    paths.root.mkdir()
    return paths


def names(view):
    return [file.name for file in view.files]


def test_no_directory(tmp_path):
    for root in (tmp_path / "none", tmp_path / "file"):
        (tmp_path / "file").write_text("")
        view = ExchangeReader(ExchangePaths(root)).refresh()
        assert (view.exists, view.files, view.rejected, view.rejected_total, view.strangers) == (False, (), (), 0, ())


def test_files_by_round_kind_and_client(paths):
    for path in (
        paths.status(1),
        paths.phase(10),
        paths.phase(2),
        paths.update(10, 2),
        paths.update(9, 2),
        paths.global_adapter(2),
        paths.flag(0, 2),
        paths.reference("ab" * 32),
        paths.contribution(0, 2),
        paths.task(2),
    ):
        path.write_bytes(b"x" * 7)
    os.utime(paths.phase(10), (50.0, 60.0))
    view = ExchangeReader(paths).refresh()
    assert names(view) == [
        "contrib_client_0_round_2.json",
        "done_0_2.flag",
        "global_round_2.safetensors",
        "phase_2.txt",
        "task_round_2.json",
        "client_9_round_2.safetensors",
        "client_10_round_2.safetensors",
        "phase_10.txt",
        "reference_abababababababab.safetensors",
        "status_1.json",
    ]
    last = view.files[7]
    assert (last.kind, last.round, last.client, last.bytes, last.modified) == ("phase", 10, None, 7, 60.0)
    assert (view.files[6].kind, view.files[6].client) == ("update", 10)
    assert view.strangers == ()


def test_what_belongs_there_is_no_stranger(paths):
    for name in ("orchestrator.lock", "client_3.lock", ".status_1.json.x.tmp"):
        (paths.root / name).write_text("")
    for folder in (paths.bell, paths.rejected):
        folder.mkdir()
    view = ExchangeReader(paths).refresh()
    assert (view.files, view.strangers) == ((), ())


def test_strangers(paths, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret" * 1000)
    for name in (
        "notes.txt",
        "client_x.lock",
        "client_01_round_2.safetensors",
        "<script>alert(1)</script>".replace("/", "_"),
        "phase_1.txt.bak",
    ):
        (paths.root / name).write_text("")
    paths.phase(1).symlink_to(tmp_path / "secret")
    paths.phase(2).mkdir()
    os.mkfifo(paths.phase(3))
    view = ExchangeReader(paths).refresh()
    assert view.files == ()
    assert view.strangers == tuple(sorted(path.name for path in paths.root.iterdir()))


def test_refusals_newest_first_each_read_once(paths, monkeypatch):
    folder = Quarantine(paths)
    for number in range(3):
        paths.flag(number, 4).write_text("")
        folder.refuse([paths.flag(number, 4)], f"reason {number}", "run", 4, number)
    reader = ExchangeReader(paths)
    view = reader.refresh()
    assert view.rejected == tuple(reversed(folder.rejections))
    assert (view.rejected_total, view.strangers) == (3, ())
    opened = []
    real = module.read_small
    monkeypatch.setattr(
        module, "read_small", lambda name, *rest, **more: opened.append(name) or real(name, *rest, **more)
    )
    assert reader.refresh() == view
    assert not opened
    folder.refuse([], "another", "run", 4)
    assert [rejection.reason for rejection in reader.refresh().rejected] == [
        "another",
        "reason 2",
        "reason 1",
        "reason 0",
    ]
    assert len(opened) == 1


def test_only_the_newest_reasons_are_read(paths, monkeypatch):
    monkeypatch.setattr(module, "_MOST_REASONS", 5)
    folder = Quarantine(paths)
    for number in range(12):
        folder.refuse([], f"reason {number}", "run", 4)
    view = ExchangeReader(paths).refresh()
    assert [rejection.reason for rejection in view.rejected] == [f"reason {number}" for number in (11, 10, 9, 8, 7)]
    assert view.rejected_total == 12


def test_reasons_that_are_none(paths, tmp_path):
    good = Quarantine(paths).refuse([], "good", "run", 1)
    text = paths.rejection(next(paths.rejected.iterdir()).name.split("_")[0]).read_text()
    (tmp_path / "elsewhere").write_text(text)
    paths.rejection("1").symlink_to(tmp_path / "elsewhere")
    paths.rejection("2").write_text("{")
    paths.rejection("3").write_text(text + " " * 100_000)
    paths.rejection("4").mkdir()
    paths.rejection("9" * 29).write_text(text.replace('"round":1', '"round":"1"'))
    (paths.rejected / "x_reason.json").write_text(text)
    view = ExchangeReader(paths).refresh()
    assert (view.rejected, view.rejected_total) == ((good,), 6)


def test_the_folder_of_refusals_is_not_followed_elsewhere(paths, tmp_path):
    other = ExchangePaths(tmp_path / "other")
    other.root.mkdir()
    Quarantine(other).refuse([], "elsewhere", "run", 1)
    paths.rejected.symlink_to(other.rejected)
    view = ExchangeReader(paths).refresh()
    assert (view.rejected, view.rejected_total) == ((), 0)


def test_a_flood_of_files_is_bounded(paths, monkeypatch):
    monkeypatch.setattr(module, "_MOST_NAMES", 50)
    monkeypatch.setattr(module, "_MOST_STRANGERS", 10)
    for number in range(80):
        (paths.root / f"flood {number}").write_text("")
    assert len(ExchangeReader(paths).refresh().strangers) == 10
    for number in range(80):
        paths.phase(number).write_text("sft")
    assert len(ExchangeReader(paths).refresh().files) <= 50


def test_a_file_that_goes_while_it_is_looked_at(paths, monkeypatch):
    paths.phase(1).write_text("sft")
    paths.phase(2).write_text("sft")
    real = module._entries

    def vanishing(folder):
        for entry in real(folder):
            if entry.name == "phase_1.txt":
                paths.phase(1).unlink()
            yield entry

    monkeypatch.setattr(module, "_entries", vanishing)
    assert names(ExchangeReader(paths).refresh()) == ["phase_2.txt"]


@settings(max_examples=few(100), deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=20),
        max_size=10,
    )
)
def test_any_names_are_files_or_strangers(tmp_path_factory, texts):
    paths = ExchangePaths(tmp_path_factory.mktemp("exchange"))
    kept = {text for text in texts if text not in (".", "..")}
    for text in kept:
        (paths.root / text).write_text("")
    view = ExchangeReader(paths).refresh()
    assert {*names(view), *view.strangers} == {
        text for text in kept if not text.startswith(".") and text not in ("bell", "rejected")
    }


def test_a_real_round(paths, tmp_path):
    fed, reader = federation(clients=2, rounds=1), ExchangeReader(paths)
    (paths.root / "client_x_round_0.safetensors").write_text("no client's")
    with (
        client_processes(paths.root, {0: ToyLearner(), 1: ToyLearner()}),
        ExchangeTransport(paths, exchange_spec(2, keep_rounds=5), tmp_path / "received") as transport,
    ):
        state = fed.run_round(START, transport).state
        first = reader.refresh()
        fed.run_round(state, transport)
        second = reader.refresh()
    kinds = sorted((file.kind, file.client) for file in first.files if file.round == 0)
    answer = [(kind, client) for kind in ("contribution", "flag", "update") for client in (0, 1)]
    assert kinds == sorted([*answer, ("global_adapter", None), ("phase", None), ("task", None)], key=str)
    assert [rejection.reason for rejection in first.rejected] == ["not a file name of the protocol"]
    assert first.rejected_total == 1
    assert {file.round for file in second.files} == {0, 1, None}
    assert {file.kind for file in second.files if file.round is None} == {"reference", "status"}
    assert all(abs(time.time() - file.modified) < 600 for file in second.files)


@pytest.mark.parametrize("kind", INSTEAD_OF_A_FOLDER)
def test_whatever_lies_where_files_belong_the_page_shows_the_directory(paths, kind):
    for path in [*place_names(paths, 2, range(2)), paths.rejected, paths.server_lock]:
        put(path, kind)
    view = ExchangeReader(paths).refresh()
    assert (view.exists, view.rejected, view.rejected_total) == (True, (), 0)
    assert bool(view.files) == (kind == "a file")


@pytest.mark.parametrize("field", ["time", "round", "client_id", "run_id", "reason", "files"])
@pytest.mark.parametrize("value", [1e308, 10**320, -1, "x" * 60_000, ["y" * 300], None])
def test_a_refusal_that_says_absurd_things_hides_no_other(paths, field, value):
    folder = Quarantine(paths)
    paths.flag(1, 0).touch()
    good = folder.refuse([paths.flag(1, 0)], "because", "run", 0, 1)
    said = good.model_dump(mode="json") | {field: value}
    paths.rejection("9" * 25).write_text(json.dumps(said))
    view = ExchangeReader(paths).refresh()
    assert good in view.rejected
    assert view.rejected_total == 2
    assert [rejection_row(each)["time"] for each in view.rejected]
