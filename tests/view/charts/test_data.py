import pandas as pd
import pytest

from fccl.view import charts
from tests.view.charts.reading import encodings, rows_of, wording
from tests.view.histories import manifest


def test_topics_are_counted_per_client():
    data = manifest(3, ("addition", "birds"), noisy=(1,))
    spec = charts.topics(data, "va").to_dict()
    drawn = {(row["topic"], row["client"]): row["examples"] for row in rows_of(spec)}
    clients = enumerate(("0", "1!", "2"))
    assert drawn == {
        (topic, name): data.topics_by_client["va"][client][at]
        for client, name in clients
        for at, topic in enumerate(data.topics)
    }
    assert "spoilt" in encodings(spec)[0]["x"]["title"]


def test_many_topics_and_clients_are_put_together():
    data = manifest(200, tuple(f"topic {number}" for number in range(80)))
    spec = charts.topics(data, "sft").to_dict()
    table = pd.DataFrame(rows_of(spec))
    assert table["topic"].nunique() == 30
    assert table["client"].nunique() == 50
    assert 4 * table["examples"].sum() == pytest.approx(sum(map(sum, data.topics_by_client["sft"])))
    assert "mean of 4 clients" in wording(spec)


def test_topics_that_look_alike_stay_apart():
    table = pd.DataFrame(rows_of(charts.topics(manifest(2, ("a b", "a  b", "")), "sft").to_dict()))
    assert table["topic"].nunique() == 3
    assert "(none)" in set(table["topic"])
