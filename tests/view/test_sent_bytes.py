"""Bytes by round, of a run over an exchange directory and of one that Flower has carried."""

from fccl.records.sent import SentBytes
from fccl.records.sites import CarriedRound, SitesRecord
from fccl.view.runs import RunReader
from fccl.view.sent_bytes import bytes_table
from tests.view.logs import line


def rounds(logs, *sent):
    """A run whose rounds took so many bytes up and, for each client, down."""
    logs.begin()
    for number, (up, down) in enumerate(sent):
        bytes_of = SentBytes(codec="fp32", up=up, down=down, whole=down)
        logs.append(logs.paths.progress, logs.record(number).model_copy(update={"sent": bytes_of}))
    return RunReader(logs.paths)


def test_the_newest_round_comes_first_with_the_bytes_of_all_clients(logs):
    table = bytes_table(rounds(logs, (3_000, 1_000), (3_300, 1_100)).refresh())
    assert table.head == ("round", "phase", "clients", "up", "down")
    assert [[cell.text for cell in row] for row in table.cells] == [
        ["2", "FedIT (SFT)", "3 of 3", "3.3 kB", "3.3 kB"],
        ["1", "FedIT (SFT)", "3 of 3", "3.0 kB", "3.0 kB"],
    ]


def test_what_flower_has_carried_stands_beside_it(logs):
    reader = rounds(logs, (3_000, 1_000))
    said = SitesRecord(run_id="run", time=1.0, rounds=(CarriedRound(round=0, down=5_000, up=4_000),))
    logs.paths.sites.write_bytes(line(said))
    table = bytes_table(reader.refresh())
    assert table.head[-2:] == ("carried up", "carried down")
    assert [cell.text for cell in table.cells[0][-2:]] == ["4.0 kB", "5.0 kB"]
    assert "Carried" in table.note


def test_a_run_whose_bytes_nobody_knows_has_no_table(logs):
    logs.begin()
    logs.round(0)  # of an earlier version: its record says nothing of bytes
    assert bytes_table(RunReader(logs.paths).refresh()) is None
