"""A client's ledger of secure sums: one set of members for a key, one sum for a round."""

import pytest

from fccl.errors import StorageError, UpdateRejected
from fccl.privacy.cohort import Session
from fccl.privacy.helped import NAME, Helped

TAG, OTHER = "1" * 64, "2" * 64


def session(nonce="0", base="a"):
    return Session(run_id="run", round=3, phase="sft", base_sha256=base * 64, nonce=nonce * 32)


def test_an_update_is_masked_for_one_set_of_members_however_often_it_is_asked_for(tmp_path):
    for _ in range(2):
        Helped(tmp_path).mask(session(), TAG, (0, 1, 2), "m")
    with pytest.raises(UpdateRejected, match="needs new keys"):
        Helped(tmp_path).mask(session(), TAG, (0, 1), "m")
    Helped(tmp_path).mask(session("5"), OTHER, (0, 1), "m")
    assert len(Helped(tmp_path).lines) == 2


def test_one_sum_of_a_round_is_opened_and_no_other_after_it(tmp_path):
    Helped(tmp_path).mask(session(), TAG, (0, 1, 2), "m")
    for _ in range(2):
        Helped(tmp_path).open(session(), TAG, (0, 1, 2), (0, 2))
    with pytest.raises(UpdateRejected, match="another sum of this round"):
        Helped(tmp_path).open(session(), TAG, (0, 1, 2), (0, 1, 2))
    Helped(tmp_path).mask(session("7"), OTHER, (0, 1, 2), "m")
    with pytest.raises(UpdateRejected, match="another sum of this round"):
        Helped(tmp_path).open(session("7"), OTHER, (0, 1, 2), (0, 1, 2))
    third = "3" * 64
    Helped(tmp_path).mask(session("7", base="b"), third, (0, 1, 2), "m")
    Helped(tmp_path).open(session("7", base="b"), third, (0, 1, 2), (0, 1, 2))  # of another adapter


def test_two_updates_are_never_masked_under_the_same_keys(tmp_path):
    Helped(tmp_path).share(session(), TAG)
    Helped(tmp_path).mask(session(), TAG, (0, 1), "one")
    with pytest.raises(UpdateRejected, match="have masked another update"):
        Helped(tmp_path).mask(session(), TAG, (0, 1), "two")
    Helped(tmp_path).mask(session(), TAG, (0, 1), "one")
    assert len(Helped(tmp_path).lines) == 1


def test_keys_of_a_session_are_for_one_cohort(tmp_path):
    for _ in range(2):
        Helped(tmp_path).share(session(), TAG)
    with pytest.raises(UpdateRejected, match="in use with other clients"):
        Helped(tmp_path).share(session(), OTHER)
    with pytest.raises(UpdateRejected, match="in use with other clients"):
        Helped(tmp_path).mask(session(), OTHER, (0, 1), "m")
    with pytest.raises(UpdateRejected, match="masked no update"):
        Helped(tmp_path).open(session(), TAG, (0, 1), (0, 1))
    Helped(tmp_path).share(session("5"), OTHER)


def test_nothing_is_opened_that_this_client_has_not_masked_for(tmp_path):
    with pytest.raises(UpdateRejected, match="masked no update"):
        Helped(tmp_path).open(session(), TAG, (0, 1), (0, 1))
    Helped(tmp_path).mask(session(), TAG, (0, 1, 2), "m")
    with pytest.raises(UpdateRejected, match="masked no update"):
        Helped(tmp_path).open(session(), TAG, (0, 1), (0, 1))


def test_a_damaged_ledger_is_an_error_for_what_was_opened_must_not_be_forgotten(tmp_path):
    Helped(tmp_path).mask(session(), TAG, (0, 1), "m")
    (tmp_path / NAME).write_text('{"session":')
    with pytest.raises(StorageError, match="which sums were opened"):
        Helped(tmp_path)
