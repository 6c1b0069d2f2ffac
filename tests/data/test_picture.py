"""The picture: there, an image, the same twice, and readable for many topics and clients."""

import matplotlib.image
import pytest

from fccl.data.picture import save_picture, topic_rows
from fccl.data.shards import Manifest, SourceReport
from fccl.data.spec import DataSpec
from fccl.errors import StorageError
from fccl.specs import PartitionSpec


def manifest_of(clients, topics):
    table = tuple(tuple((client * 7 + topic * 3) % 11 for topic in range(topics)) for client in range(clients))
    return Manifest(
        spec=DataSpec(
            sft_data="a", va_data="b", test_examples=1, validation_examples=1, partition=PartitionSpec(num_clients=clients, alpha=0.3, seed=0)
        ),
        sources=tuple(SourceReport(phase=phase, name="x", kind="file", sha256="", rows_read=4, examples=4) for phase in ("sft", "va")),
        counts={"train": {"sft": 1, "va": 1}},
        topics=tuple(f"topic {topic}" for topic in range(topics)),
        topics_by_client={"sft": table, "va": ((0,) * topics,) * clients},
        noisy_clients=(0,),
        files={},
    )


@pytest.mark.parametrize(("clients", "topics"), [(1, 1), (4, 8), (300, 50)])
def test_a_picture_of_any_federation(tmp_path, clients, topics):
    manifest = manifest_of(clients, topics)
    save_picture(manifest, tmp_path / "one.png")
    height, width = matplotlib.image.imread(tmp_path / "one.png").shape[:2]
    assert 200 < height < 2000
    assert 400 < width < 3000


def test_the_same_picture_twice(tmp_path):
    for name in ("one.png", "two.png"):
        save_picture(manifest_of(4, 8), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_smaller_topics_share_the_last_row():
    names, table = topic_rows(manifest_of(3, 10), "sft", 4)
    whole = topic_rows(manifest_of(3, 10), "sft", 10)[1]
    assert names == ["topic 0", "topic 1", "topic 2", "7 smaller topics"]
    assert table[:3] == whole[:3]
    assert [sum(column) for column in zip(*table, strict=True)] == [sum(column) for column in zip(*whole, strict=True)]


def test_a_folder_in_the_way_is_one_error(tmp_path):
    (tmp_path / "one.png").mkdir()
    with pytest.raises(StorageError):
        save_picture(manifest_of(1, 1), tmp_path / "one.png")
