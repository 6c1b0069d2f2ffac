from pathlib import Path

import numpy as np
import pytest

from fccl.compare.scenarios import SCENARIOS
from fccl.compare.summary import Options, bad_weight, effective, rows
from fccl.compare.trial import Trial
from fccl.compare.values import RoundSummary
from tests.compare.test_verdicts import SPEC
from tests.compare.test_verdicts import trial as result


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
        trial = found[name][0][1]
        assert row.loss.value == pytest.approx(sum(trial.losses) / sum(trial.units))
        assert row.validation == tuple(one.loss for one in trial.rounds)
        assert row.bad_clients == bad
    assert table["oracle"].bad_weight == (0.0, 0.0)
    shares = found["fedavg"][0][1].rounds[0]
    assert table["fedavg"].bad_weight[0] == pytest.approx(
        sum(w for c, w in zip(shares.clients, shares.weights, strict=True) if c in bad)
    )
    assert table["base"].bad_weight is table["alone"].bad_weight is table["centralised"].bad_weight is None


def test_the_loss_is_the_sum_over_the_units_and_none_without_figures():
    scored = result((1.0, 2.0), (2.0, 4.0))
    assert scored.loss == pytest.approx(0.5)
    assert scored.model_copy(update={"losses": (), "units": ()}).loss is None


def made_up(method, seeds, effect, draw):
    """Trials of 200 test examples whose losses are those of a seed, plus an effect and noise."""
    found = []
    for seed in seeds:
        hard = np.random.default_rng(seed).gamma(2.0, 0.5, 200)
        noise = np.random.default_rng((draw, seed)).normal(0, 0.01, 200)
        rounds = (RoundSummary(clients=(0,), weights=(1.0,), loss=1.0 + effect, tokens=10, bytes=5),) * 2
        one = Trial("clean-iid", method, seed, SPEC, Path())
        found.append((one, result(hard + effect + noise, rounds=rounds)))
    return found


def test_a_method_of_fewer_seeds_is_held_against_the_others_on_these():
    """Five seeds of FedAvg and ours, two of the pooled data and of a method that stands beside."""
    found = {
        "pooled": made_up("pooled", (1, 2), -0.4, 1),
        "fedavg": made_up("fedavg", range(1, 6), 0.0, 2),
        "tempered": made_up("tempered", range(1, 6), -0.2, 3),
        "verified": made_up("verified", (1, 2), -0.1, 4),
    }
    said = {row.method: row for row in rows(SCENARIOS["clean-iid"], found, Options(8, 200, 1))}
    two = {name: pairs[:2] for name, pairs in found.items()}
    on_two = {row.method: row for row in rows(SCENARIOS["clean-iid"], two, Options(8, 200, 1))}
    assert (said["tempered"].seeds, said["verified"].seeds) == (5, 2)
    assert said["verified"] == on_two["verified"]
    assert said["verified"].verdict == said["tempered"].verdict == "better"
    assert said["tempered"].difference != on_two["tempered"].difference, "of five seeds by Student's t"
    assert said["tempered"].gap_pooled == on_two["tempered"].gap_pooled is not None
    assert said["tempered"].tokens_until == 10.0


def test_effective_clients_are_those_of_the_seed_that_has_the_fewest_in_a_round():
    level, one = (
        rounds({0: 0.25, 1: 0.25, 2: 0.25, 3: 0.25}, {0: 1.0, 1: 0.0}),
        rounds({0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5}),
    )
    assert effective([level, one]) == pytest.approx((2.0, 1.0))
    assert effective([[RoundSummary(clients=(0,), weights=None, loss=1.0)]]) is None
    assert effective([[]]) is None


def test_agreement_is_over_all_rounds_and_over_those_whose_halves_agree():
    told = [(0.9, 0.8), (0.1, 0.2), (0.7, 0.7), (None, None)]
    made = tuple(
        RoundSummary(clients=(0, 1), weights=(0.5, 0.5), loss=1.0, agreement=one, halves=both) for one, both in told
    )
    found = {"fedavg": [(Trial("clean-iid", "fedavg", 1, SPEC, Path()), result([1.0] * 30, rounds=made))]}
    (row,) = rows(SCENARIOS["clean-iid"], found, Options(8, 50, 1))
    assert row.agreement == pytest.approx(1.7 / 3)
    assert row.agreement_stable == pytest.approx(0.8)
    assert row.stable_rounds == (2, 3)
