"""The picture: there, an image, the same twice, and readable for many topics and clients."""

import io

import matplotlib.image
import matplotlib.mathtext
import pytest

from fccl.data.picture import MAX_LETTERS, draw_picture, topic_rows
from fccl.records.manifest import Manifest, SourceReport
from fccl.specs import DataSpec, PartitionSpec


def manifest_of(clients, topics, names=None):
    table = tuple(tuple((client * 7 + topic * 3) % 11 for topic in range(topics)) for client in range(clients))
    return Manifest(
        spec=DataSpec(
            sft_data="a",
            va_data="b",
            test_examples=1,
            validation_examples=1,
            partition=PartitionSpec(num_clients=clients, alpha=0.3, seed=0),
        ),
        sources=tuple(
            SourceReport(phase=phase, name="x", kind="file", sha256="", rows_read=4, examples=4)
            for phase in ("sft", "va")
        ),
        counts={"train": {"sft": 1, "va": 1}},
        topics=names or tuple(f"topic {topic}" for topic in range(topics)),
        topics_by_client={"sft": table, "va": ((0,) * topics,) * clients},
        noisy_clients=(0,),
        files={},
    )


def size_of(picture):
    return matplotlib.image.imread(io.BytesIO(picture)).shape[:2]


@pytest.mark.parametrize(("clients", "topics"), [(1, 1), (4, 8), (300, 50)])
def test_a_picture_of_any_federation(clients, topics):
    height, width = size_of(draw_picture(manifest_of(clients, topics)))
    assert 200 < height < 2000
    assert 400 < width < 3000


def test_the_same_picture_twice():
    assert draw_picture(manifest_of(4, 8)) == draw_picture(manifest_of(4, 8))


def test_a_topic_s_name_is_drawn_as_it_is_and_never_read_as_mathematics(monkeypatch):
    def read(*arguments, **options):
        raise AssertionError("read as mathematics")

    monkeypatch.setattr(matplotlib.mathtext.MathTextParser, "parse", read)
    draw_picture(manifest_of(2, 4, (r"$\frac{1}{0$ _x^", "price $^$", "$a{b$", "$5 to $10")))


def test_a_name_in_another_script_or_longer_than_the_picture_is_drawn_without_a_warning():
    draw_picture(manifest_of(2, 2, ("\N{CJK UNIFIED IDEOGRAPH-4E2D}\0", "x" * 5000)))
    assert draw_picture(manifest_of(2, 1, ("x" * 5000,))) == draw_picture(manifest_of(2, 1, ("x" * MAX_LETTERS + "y",)))


def test_smaller_topics_share_the_last_row():
    names, table = topic_rows(manifest_of(3, 10), "sft", 4)
    whole = topic_rows(manifest_of(3, 10), "sft", 10)[1]
    assert names == ["topic 0", "topic 1", "topic 2", "7 smaller topics"]
    assert table[:3] == whole[:3]
    assert [sum(column) for column in zip(*table, strict=True)] == [sum(column) for column in zip(*whole, strict=True)]
