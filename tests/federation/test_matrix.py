"""Whose update helps whose examples: the matrix against the formula, one entry at a time."""

import pytest

from fccl.federation.kept_rounds import kept_round
from fccl.federation.matrix import by_owner, helps_whom
from fccl.records.run import ExampleLosses
from fccl.testing.toy import ToyLearner, federation
from tests.federation.toy_runs import ROUNDS, conduct

OWNERS = (0, 0, 2)  # client 1 keeps nothing apart
GOALS = (0.0, 1.0, 2.0)  # of each example: what its owner's numbers tend to
UNITS = (1.0, 3.0, 2.0)


def losses(adapter, reference):
    """Each example's squared distance from its goal, times its units."""
    mean = float(adapter.tensors["w"].mean())
    found = [(mean - goal) ** 2 * units for goal, units in zip(GOALS, UNITS, strict=True)]
    return ExampleLosses(losses=tuple(found), units=UNITS)


def mean_loss(adapter, owner):
    mine = [place for place, client in enumerate(OWNERS) if client == owner]
    found = losses(adapter, None)
    return sum(found.losses[place] for place in mine) / sum(UNITS[place] for place in mine)


def test_an_entry_is_the_mean_fall_over_the_rounds_of_the_update(tmp_path):
    logs, _ = conduct(tmp_path, federation(clients=3))
    rounds = [kept_round(logs, number) for number in range(ROUNDS)]
    found = helps_whom(rounds, "sft", OWNERS, losses)
    assert (found.updates, found.owners, found.examples, found.rounds) == ((0, 1, 2), (0, 2), (2, 1), 2)
    for row, client in enumerate(found.updates):
        for column, owner in enumerate(found.owners):
            falls = [
                mean_loss(kept.adapter, owner) - mean_loss(kept.updates()[client].adapter.load(), owner)
                for kept in rounds[:2]
            ]
            assert found.falls[row][column] == pytest.approx(sum(falls) / 2)


def test_a_client_without_updates_has_no_row_and_a_phase_without_rounds_no_matrix(tmp_path):
    logs, _ = conduct(tmp_path, federation(clients=3), learner=ToyLearner(broken=frozenset({1})))
    rounds = [kept_round(logs, number) for number in range(2)]
    assert helps_whom(rounds, "sft", OWNERS, losses).updates == (0, 2)
    assert helps_whom(rounds, "va", OWNERS, losses) is None
    assert helps_whom(rounds, "sft", (), losses) is None


def test_means_are_over_units_and_not_over_examples():
    found = ExampleLosses(losses=(2.0, 3.0, 8.0), units=(1.0, 4.0, 2.0))
    assert by_owner(found, OWNERS, [0, 2]).tolist() == [1.0, 4.0]
