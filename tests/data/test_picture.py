"""The picture: there, an image, the same twice, and readable for many topics and clients."""

import io

import pytest
from PIL import Image

from fccl.data import picture
from fccl.data.picture import MAX_COLUMNS, MAX_LETTERS, draw_picture, narrow, topic_rows
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


def size_of(content):
    with Image.open(io.BytesIO(content)) as opened:
        return opened.size[::-1]


@pytest.mark.parametrize(("clients", "topics"), [(1, 1), (4, 8), (120, 50)])
def test_a_picture_of_any_federation(clients, topics):
    height, width = size_of(draw_picture(manifest_of(clients, topics)))
    assert 200 < height < 2000
    assert 400 < width < 3000


def test_the_same_picture_twice():
    assert draw_picture(manifest_of(4, 8)) == draw_picture(manifest_of(4, 8))


def picture_of(*names):
    return draw_picture(manifest_of(2, len(names), names))


def test_every_name_of_a_topic_is_drawn_as_it_is():
    names = (r"$\frac{1}{0$ _x^", "price $^$", "'] + datum.x + ['", "\N{CJK UNIFIED IDEOGRAPH-4E2D}\0\n")
    plain = picture_of("a", "b", "c", "d")
    for place, name in enumerate(names):
        assert picture_of(*("abcd"[:place]), name, *("abcd"[place + 1 :])) != plain


def test_topics_of_one_name_have_a_row_each():
    assert size_of(picture_of("a", "a", "a", "a")) == size_of(picture_of("a", "b", "c", "d"))


def test_a_name_longer_than_the_picture_is_cut():
    assert picture_of("x" * 5000) == picture_of("x" * MAX_LETTERS + "y")


def test_smaller_topics_share_the_last_row():
    names, table = topic_rows(manifest_of(3, 10), "sft", 4)
    whole = topic_rows(manifest_of(3, 10), "sft", 10)[1]
    assert names == ["topic 0", "topic 1", "topic 2", "7 smaller topics"]
    assert table[:3] == whole[:3]
    assert [sum(column) for column in zip(*table, strict=True)] == [sum(column) for column in zip(*whole, strict=True)]


class Counted(list):
    """A row that counts how often it is gone through."""

    gone_through = 0

    def __iter__(self):
        self.gone_through += 1
        return super().__iter__()


def test_a_row_of_many_clients_is_gone_through_a_few_times_and_not_once_a_client():
    row = Counted(range(500))
    (shares,) = picture._shares([row])
    assert shares == [count / sum(range(500)) for count in range(500)]
    assert row.gone_through <= 4


@pytest.mark.parametrize("clients", [1, MAX_COLUMNS, MAX_COLUMNS + 1, 10_000])
def test_of_many_clients_neighbours_share_a_column_and_no_example_is_lost(clients):
    table = [[client % 7 for client in range(clients)], [1] * clients]
    found = narrow(table)
    assert [sum(row) for row in found] == [sum(row) for row in table]
    assert len(found[0]) == len(found[1]) <= MAX_COLUMNS
    assert clients > MAX_COLUMNS or found == table
    assert max(found[1]) - min(found[1][:-1] or found[1]) == 0, "as many clients in each but the last"
