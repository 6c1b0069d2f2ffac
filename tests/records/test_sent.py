"""Bytes of a run's adapters, against sums written out by hand."""

from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from fccl.records.sent import SentBytes, bytes_line
from tests.examples import few


def a_round(up, down, whole, clients):
    arrived = [SimpleNamespace(client_id=client) for client in range(clients)]
    sent = SentBytes(codec="int3", up=up, down=down, whole=whole)
    return SimpleNamespace(selected=range(clients), arrived=arrived, sent=sent)


def test_a_run_says_what_it_has_sent_beside_whole_adapters():
    """Two rounds of two clients: 2 x 100 kB up and 2 x 100 kB down each, where whole ones have 8 x 1 MB."""
    rounds = [a_round(200_000, 100_000, 1_000_000, 2)] * 2
    said = "Adapters took 400 kB up and 400 kB down; whole ones would have taken 8.0 MB, 10.0 times as much."
    assert bytes_line(rounds) == said


@settings(max_examples=few(50))
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 10**9)), max_size=5))
def test_whole_adapters_and_records_of_earlier_versions_have_nothing_to_say(rounds):
    whole = [a_round(clients * length, length, length, clients) for clients, length in rounds]
    assert bytes_line(whole) == bytes_line([SimpleNamespace(**each.__dict__ | {"sent": None}) for each in whole]) == ""
