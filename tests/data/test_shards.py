"""The prepared folder: a client reads its own files only, and a folder that is not whole never looks complete."""

import errno
from pathlib import Path

import pytest

from fccl.data import shards as shards_module
from fccl.data.examples import PreferencePair, SftExample
from fccl.data.shards import ClientShard, commit, is_complete, load_shard, read_manifest, write_prepared
from fccl.data.split import SERVER_SPLITS
from fccl.errors import DataError, StorageError
from fccl.paths import DataPaths, LogPaths
from fccl.records.manifest import Manifest, SourceReport
from fccl.specs import DataSpec, PartitionSpec
from fccl.storage import files


def shards_of(count, mark=""):
    return [
        ClientShard(
            client,
            (SftExample(f"Q{client}{mark}", "A", "t"),),
            (PreferencePair(f"P{client}{mark}", "A", "B", "t", "rude"),),
        )
        for client in range(count)
    ]


def server_splits(mark=""):
    return {
        (split, phase): [SftExample(f"H{split}{mark}", "A")]
        if phase == "sft"
        else [PreferencePair(f"H{split}{mark}", "A", "B")]
        for split in SERVER_SPLITS
        for phase in ("sft", "va")
    }


def manifest_of(digests, clients):
    return Manifest(
        spec=DataSpec(
            sft_data="a",
            va_data="b",
            test_examples=1,
            validation_examples=1,
            partition=PartitionSpec(num_clients=clients, alpha=None, seed=0),
        ),
        sources=tuple(
            SourceReport(phase=phase, name="x", kind="file", sha256="", rows_read=4, examples=4)
            for phase in ("sft", "va")
        ),
        counts={
            "train": {"sft": clients, "va": clients},
            "learn": {"sft": 1, "va": 1},
            "validation": {"sft": 1, "va": 1},
            "test": {"sft": 1, "va": 1},
        },
        topics=("t",),
        topics_by_client={"sft": ((1,),) * clients, "va": ((1,),) * clients},
        files=digests,
    )


def prepared(root, clients, mark=""):
    paths = DataPaths(root)
    commit(paths, manifest_of(write_prepared(paths, shards_of(clients, mark), server_splits(mark), b""), clients))
    return paths


def names(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_a_shard_that_the_manifest_does_not_speak_of_is_refused(tmp_path):
    """Prepared anew while a run goes on, with as many examples."""
    paths = prepared(tmp_path, 2)
    manifest = read_manifest(paths)
    assert load_shard(paths, 1, manifest) == load_shard(paths, 1)
    prepared(tmp_path, 2, mark=" anew")
    with pytest.raises(StorageError, match=r"client_1_sft.jsonl is not what it was when the data was prepared"):
        load_shard(paths, 1, manifest)


@pytest.mark.parametrize(
    ("folder", "hint"),
    [
        (DataPaths, "prepare the data again, with the same settings"),
        (LogPaths, "put a copy of the file back, or start the run anew"),
    ],
)
def test_a_manifest_that_is_damaged_is_one_line_with_the_way_out(tmp_path, folder, hint):
    folder(tmp_path).manifest.write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json is not a manifest of this version") as caught:
        read_manifest(folder(tmp_path))
    assert caught.value.hint == hint


def test_a_shard_comes_back_from_its_own_two_files(tmp_path):
    paths = prepared(tmp_path, 3)
    for client in (0, 2):
        for phase in ("sft", "va"):
            paths.shard(client, phase).unlink()
    paths.manifest.unlink()
    assert load_shard(paths, 1) == shards_of(3)[1]
    with pytest.raises(DataError, match=r"client_0_sft\.jsonl is not there"):
        load_shard(paths, 0)


def test_a_client_may_have_examples_of_one_kind_alone_and_an_empty_one_is_an_error(tmp_path):
    paths = prepared(tmp_path, 2)
    paths.shard(1, "sft").write_text("")
    shard = load_shard(paths, 1)
    assert (shard.sft, shard.va) == ((), shards_of(2)[1].va)
    with pytest.raises(DataError, match="client 1 has no instructions"):
        shard.require("sft")
    paths.shard(1, "va").write_text("")
    with pytest.raises(DataError, match=r"client_1_va\.jsonl has no examples"):
        load_shard(paths, 1)


def test_old_shards_of_a_larger_split_do_not_linger_and_other_files_stay(tmp_path):
    prepared(tmp_path, 5)
    (tmp_path / "mine.json").write_text("[]")
    (tmp_path / f".prepared.{16 * '0'}.tmp" / "clients").mkdir(parents=True)  # of a preparation that was killed
    paths = prepared(tmp_path, 2, mark="new")
    assert sorted(path.name for path in paths.clients.iterdir()) == [
        "client_0_sft.jsonl",
        "client_0_va.jsonl",
        "client_1_sft.jsonl",
        "client_1_va.jsonl",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "clients",
        "manifest.json",
        "mine.json",
        "server",
        "topics_by_client.png",
    ]
    assert load_shard(paths, 1) == shards_of(2, "new")[1]


def test_the_manifest_comes_back_and_notices_every_change(tmp_path):
    paths = prepared(tmp_path, 2)
    manifest = read_manifest(paths)
    assert manifest.samples_by_client() == {"sft": {0: 1, 1: 1}, "va": {0: 1, 1: 1}}
    assert len(manifest.files) == 10
    assert is_complete(paths, manifest)
    for name in manifest.files:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content.replace(b"A", b"C"))
        assert not is_complete(paths, manifest)
        (tmp_path / name).unlink()
        assert not is_complete(paths, manifest)
        (tmp_path / name).write_bytes(content)
    assert is_complete(paths, manifest)


@pytest.mark.parametrize("content", ["", "{}", '{"version": 2}', "no json"])
def test_a_manifest_that_is_none(tmp_path, content):
    paths = DataPaths(tmp_path)
    with pytest.raises(DataError, match="holds no prepared data"):
        read_manifest(paths)
    paths.manifest.write_text(content)
    with pytest.raises(DataError, match="not a manifest of this version"):
        read_manifest(paths)


class Cut(Exception):
    """The process dies here."""


@pytest.mark.parametrize("swaps", [0, 1])
def test_a_preparation_cut_between_the_folders_leaves_no_manifest(tmp_path, monkeypatch, swaps):
    paths = prepared(tmp_path, 3)
    done = []

    def cut(new, folder):
        if len(done) == swaps:
            raise Cut
        done.append(folder)
        files.replace_folder(new, folder)

    monkeypatch.setattr(shards_module, "replace_folder", cut)
    with pytest.raises(Cut):
        write_prepared(paths, shards_of(2, "new"), server_splits("new"), b"")
    assert not paths.manifest.exists()
    monkeypatch.undo()
    prepared(tmp_path, 2, mark="new")
    assert is_complete(paths, read_manifest(paths))


def test_a_full_disk_is_one_error_and_the_older_data_stay_whole(tmp_path, monkeypatch):
    paths = prepared(tmp_path, 3)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}

    def full(descriptor):
        if len(list(tmp_path.glob(".prepared.*/clients/*"))) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        write_prepared(paths, shards_of(2, "new"), server_splits("new"), b"")
    monkeypatch.undo()
    assert {name: (tmp_path / name).read_bytes() for name in names(tmp_path)} == before
    assert is_complete(paths, read_manifest(paths))


def test_a_folder_in_the_picture_s_place_is_one_error_and_the_older_data_stay_whole(tmp_path):
    paths = prepared(tmp_path, 3)
    paths.picture.unlink()
    paths.picture.mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        prepared(tmp_path, 2, mark="new")
    assert is_complete(paths, read_manifest(paths))


def test_a_folder_that_cannot_be_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="is a file"):
        prepared(tmp_path / "file" / "data", 1)
    if Path("/proc/self").exists():
        with pytest.raises(StorageError, match="cannot write /proc/"):
            prepared(Path("/proc/self/data"), 1)


def test_files_that_are_not_ours_are_not_deleted(tmp_path):
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "main.py").write_text("print()")
    with pytest.raises(DataError, match=r"server/main\.py is not a file of prepared data"):
        prepared(tmp_path, 1)
    assert names(tmp_path) == ["server/main.py"]


@pytest.mark.parametrize(
    "name",
    [
        "server/mine.jsonl",
        "clients/client_0_other.jsonl",
        "clients/.hidden",
        "server/test_sft.jsonl.bak",
        "clients/notes",
    ],
)
def test_no_file_that_preparing_did_not_write_goes_with_the_old_folders(tmp_path, name):
    prepared(tmp_path, 2)
    (tmp_path / name).write_text("precious")
    with pytest.raises(DataError, match="is not a file of prepared data, and preparing would delete it"):
        prepared(tmp_path, 3)
    assert (tmp_path / name).read_text() == "precious"
