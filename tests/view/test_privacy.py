"""Sentences on secure sums, where weights and losses of single clients would stand."""

from fccl.records.secure import SecureRound
from fccl.view.privacy import secure_line


def said(**changes):
    usual = {"clients": (0, 2), "cohort": 3, "threshold": 2, "bound": 10.0, "most": 1000, "bits": 15}
    return SecureRound(**(usual | changes))


def test_without_secure_sums_nothing_is_said():
    assert secure_line(()) == ""


def test_the_sum_is_said_with_its_numbers_and_nothing_of_a_single_client():
    assert secure_line((said(), said(clients=(0, 1, 2)))) == (
        "Secure aggregation: the server knows the sum of a round's updates (by samples, at most 1,000 a client) and no "
        "single one. In the last round it is of 3 of 3 clients, of which 2 were needed."
    )


def test_clients_that_gave_false_shares_in_any_round_are_named_once():
    line = secure_line((said(false_shares=(2,)), said(false_shares=(0, 2)), said()))
    assert line.endswith("were needed. False shares were given by client 0, client 2, and left out.")


def test_clients_that_dropped_out_in_any_round_are_counted():
    line = secure_line((said(dropped=(1,), most=1), said(dropped=(1,), most=1)))
    assert "(all clients count alike)" in line
    assert line.endswith("2 clients dropped out after giving shares, and their masks were taken off.")
