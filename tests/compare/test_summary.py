import pytest

from fccl.compare.scenarios import SCENARIOS
from fccl.compare.summary import Options, bad_weight, rows
from fccl.compare.values import RoundSummary


def rounds(*tables):
    return [RoundSummary(clients=tuple(table), weights=tuple(table.values()), loss=1.0) for table in tables]


def test_the_weight_of_the_bad_clients_is_theirs_by_round_and_the_mean_of_the_seeds():
    first = rounds({0: 0.5, 1: 0.3, 2: 0.2}, {0: 0.9, 1: 0.1, 2: 0.0})
    second = rounds({0: 0.2, 1: 0.4, 2: 0.4}, {0: 1.0, 1: 0.0, 2: 0.0})
    assert bad_weight([first, second], [(1, 2), (0,)]) == pytest.approx((0.35, 0.55))


def test_a_client_that_was_not_heard_has_no_weight():
    assert bad_weight([rounds({0: 1.0})], [(1, 2)]) == (0.0,)


def test_no_weights_no_weight_of_the_bad():
    assert bad_weight([[RoundSummary(clients=(0,), weights=None, loss=1.0)]], [(0,)]) is None
    assert bad_weight([[]], [(0,)]) is None


def test_rows_say_what_the_trials_say(workshop):
    from fccl.compare.methods import METHODS
    from fccl.compare.trial import run_trial

    shop = workshop()
    found = {}
    for name in ("base", "alone", "centralised", "fedavg", "oracle"):
        one = shop.planner.trial(SCENARIOS["sign-flip"], METHODS[name], 42)
        found[name] = [(one, run_trial(shop.resources, one))]
    table = {row.method: row for row in rows(SCENARIOS["sign-flip"], found, Options(4, 200, 1))}
    bad = shop.planner.bad_clients(SCENARIOS["sign-flip"], 42)
    for name, row in table.items():
        result = found[name][0][1]
        assert row.loss.value == pytest.approx(sum(result.losses) / sum(result.units))
        assert row.validation == tuple(one.loss for one in result.rounds)
        assert row.bad_clients == bad
    assert table["oracle"].bad_weight == (0.0, 0.0)
    shares = found["fedavg"][0][1].rounds[0]
    assert table["fedavg"].bad_weight[0] == pytest.approx(
        sum(w for c, w in zip(shares.clients, shares.weights, strict=True) if c in bad)
    )
    assert table["base"].bad_weight is table["alone"].bad_weight is table["centralised"].bad_weight is None


def test_the_loss_is_the_sum_over_the_units_and_none_without_figures():
    from fccl.compare.values import TrialResult
    from tests.compare.test_verdicts import SPEC

    result = TrialResult(
        spec=SPEC, seconds=0, training_seconds=0, weighing_seconds=0, losses=(1.0, 2.0), units=(2.0, 4.0)
    )
    assert result.loss == pytest.approx(0.5)
    assert result.model_copy(update={"losses": (), "units": ()}).loss is None
