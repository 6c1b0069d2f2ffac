"""Who became whom: on every screen the same words, and no name where none is to be said."""

import pytest

from fccl.records.run import RunInfo
from fccl.view.origins import declared_note, origins_sentence, origins_table
from tests.view.histories import manifest, named_clients


def test_the_sentence_counts_names_clients_and_what_was_left_out():
    said = origins_sentence(named_clients().origins, "user")
    assert (
        said
        == "Clients by user: 4 names, 2 of them together with others; 3 clients; left out: 1 small name with 4 examples"
    )


def test_the_table_has_a_client_s_names_as_text():
    table = origins_table(named_clients())
    assert [row[1].text for row in table.cells] == ["ann", "bob, cid", "e\\x1bve"]
    held = named_clients().samples_by_client()
    assert [row[2].text for row in table.cells] == [str(held["sft"][client]) for client in range(3)]


def test_names_that_are_not_to_be_said_are_counted():
    table = origins_table(named_clients(anonymize=True))
    assert [row[1].text for row in table.cells] == ["1 name", "2 names", "1 name"]


def test_data_that_names_nobody_has_no_table_and_known_shards_no_note():
    assert origins_table(manifest(3, ("a", "b"))) is None
    assert declared_note(manifest(3, ("a", "b"))) == declared_note(None) == ""


@pytest.mark.parametrize(("own", "note"), [("0", ""), ("2", "From client 3 on, numbers of examples are declared")])
def test_the_note_says_from_which_client_on_numbers_are_declared(own, note):
    info = RunInfo.model_construct(settings={"own_data_clients": own})
    assert declared_note(manifest(3, ("a", "b")), info).startswith(note)
    assert bool(declared_note(manifest(3, ("a", "b")), info)) == bool(note)
